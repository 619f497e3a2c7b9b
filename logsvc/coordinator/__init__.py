"""The group coordinator: membership, committed offsets, failed offsets and dead letters, as one pure state machine.

    coordinator   handle(event, now) -> records, reply, effects;  replay(record)
    membership    joining, heartbeats, leaving, timing out        offsets      commits and what is read back of them
    group         the state of one group; targets, reconciling    deadletter   what a letter says, how it is recognised
    assignors     who should read what                            state_log    types, keys and values of the records
    events        what goes in and out                            views        what operators see
    limits        every bound, with its default                   timers       deadlines by key

No module here does input or output, or asks for the time.
"""
