"""The tree of errors: a code each, the same class on both sides of the wire."""

import pickle
from collections import Counter

import pytest

from logsvc_common import errors
from logsvc_common.errors import BY_CODE, ClientError, LogsvcError, UnknownError, from_wire

ALL = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, LogsvcError)]
WITH_CODE = [error for error in ALL if error.code > 0]


def test_no_two_errors_share_a_code() -> None:
    assert {code: n for code, n in Counter(error.code for error in WITH_CODE).items() if n > 1} == {}


def test_codes_below_a_thousand_are_kafkas() -> None:
    # `org.apache.kafka.common.protocol.Errors`
    kafkas = {
        "OffsetOutOfRange": 1,
        "CorruptBatch": 2,
        "UnknownTopic": 3,
        "RecordTooLarge": 10,
        "CoordinatorLoading": 14,
        "InvalidTopicName": 17,
        "InvalidGroupName": 24,
        "UnknownMember": 25,
        "UnsupportedVersion": 35,
        "TopicExists": 36,
        "InvalidPartitions": 37,
        "InvalidConfig": 40,
        "InvalidRequest": 42,
        "OutOfOrderSequence": 45,
        "DuplicateSequence": 46,
        "InvalidProducerEpoch": 47,
        "StorageFailed": 56,
        "GroupNotEmpty": 68,
        "UnknownGroup": 69,
        "GroupFull": 81,
        "FencedInstanceId": 82,
        "BrokerOverloaded": 89,
        "FencedMemberEpoch": 110,
    }
    assert {error.__name__: error.code for error in WITH_CODE if error.code < 1_000} == kafkas


@pytest.mark.parametrize("error", WITH_CODE, ids=lambda error: error.__name__)
def test_an_error_comes_out_of_the_wire_as_it_went_in(error: type[LogsvcError]) -> None:
    back = from_wire(error.code, "why: ünicode")
    assert type(back) is error
    assert back.message == "why: ünicode"
    assert str(back) == "why: ünicode"
    assert type(pickle.loads(pickle.dumps(back))) is error


@pytest.mark.parametrize("code", [-1, 0, 999, 31_337])
def test_an_unknown_code_is_an_error_still(code: int) -> None:
    assert isinstance(from_wire(code, "m"), UnknownError)


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_an_error_explains_itself_in_one_sentence(error: type[LogsvcError]) -> None:
    assert error.__doc__
    assert error().message


def test_what_only_the_client_finds_out_has_no_code() -> None:
    for error in ALL:
        if issubclass(error, ClientError):
            assert error.code == -1
            assert error not in BY_CODE.values()
