"""The console's files: what is in the folder and nothing else, with an ETag, under a policy without inline scripts."""

import asyncio
import os
import re
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel
from starlette.applications import Starlette

from logsvc.listeners.console_files import FOLDER, TYPES, routes
from tests.unit.listeners.api.world import Answer, ask_app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as the package's, a secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    console = tmp_path / "console"
    (console / "js").mkdir(parents=True)
    (console / "index.html").write_text("<!doctype html>")
    (console / "js" / "main.js").write_text("export {}")
    (console / "__init__.py").write_text("code = 1")
    (console / "link.txt").symlink_to(tmp_path / "secret.txt")
    return console


def get(folder: Path, target: str, **headers: str) -> Answer:
    app = Starlette(routes=routes(folder))
    return asyncio.run(ask_app(app, "GET", target, {name.replace("_", "-"): value for name, value in headers.items()}))


def test_the_root_leads_to_the_console(folder: Path) -> None:
    for target in ("/", "/console"):
        answer = get(folder, target)
        assert (answer.status, answer.headers["location"]) == (307, "/console/")


def test_a_folder_is_answered_with_its_page_and_scripts_with_their_type(folder: Path) -> None:
    page = get(folder, "/console/")
    assert (page.status, page.body) == (200, b"<!doctype html>")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    script = get(folder, "/console/js/main.js")
    assert (script.status, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")


def test_nothing_inline_nothing_framed_nothing_from_elsewhere(folder: Path) -> None:
    policy = get(folder, "/console/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_a_browser_that_has_the_file_hears_that_it_is_the_same_until_it_changes(folder: Path) -> None:
    first = get(folder, "/console/js/main.js")
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for sent in (etag, f"W/{etag}", f'"other", {etag}'):
        again = get(folder, "/console/js/main.js", if_none_match=sent)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    (folder / "js" / "main.js").write_text("export const other = 1")
    assert get(folder, "/console/js/main.js", if_none_match=etag).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "js/../../secret.txt",
        "js/..%2F..%2Fsecret.txt",
        "%2e%2e/secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "..\\secret.txt",
        "link.txt",
        "__init__.py",
        "js",
        "js/",
        "index.html%00",
        "INDEX.HTML",
        "nope.js",
        "./index.html",
    ],
)
def test_what_is_not_a_file_of_the_console_is_404(folder: Path, path: str) -> None:
    answer = get(folder, f"/console/{path}")
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert b"secret" not in answer.body.replace(path.encode(), b"").replace(b"secret.txt", b"")


class TestTheConsoleItself:
    def test_it_has_a_page_whose_files_are_all_there(self) -> None:
        page = (FOLDER / "index.html").read_text()
        wanted = [path for path in re.findall(r'(?:src|href)="([^"#]+)"', page) if "://" not in path]
        assert wanted
        for path in wanted:
            assert get(FOLDER, f"/console/{path}").status == 200, path

    def test_every_file_of_it_has_a_type(self) -> None:
        others = {path.suffix for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts} - set(TYPES)
        assert others <= {".py", ".md", ".LICENSE", ""}  # nobody asks for these

    def test_the_wheel_ships_it(self, tmp_path: Path) -> None:
        root = FOLDER.parents[1]
        if not (root / "pyproject.toml").exists():
            pytest.skip("not a checkout: there is nothing to build a wheel from")
        before = Path.cwd()
        os.chdir(root)
        try:
            wheel = tmp_path / build_wheel(str(tmp_path))
        finally:
            os.chdir(before)
        shipped = set(zipfile.ZipFile(wheel).namelist())
        files = {path.relative_to(root).as_posix() for path in FOLDER.rglob("*") if path.suffix in TYPES}
        assert files
        assert files <= shipped
