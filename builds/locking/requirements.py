"""Read what a tree asks of Python, line by line, and refuse what a lock cannot hold.

Pure: text in, requirements and findings out. A line that would make the image depend on where or when it is built
(a path, an index of its own, a branch) is a finding that names file and line; nothing is passed on unread.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builds.findings import ERROR, WARNING, Finding, finding

MAX_LINES = 2_000
# Public by their nature, and their redirects stay with them.
FORGES = frozenset(("github.com", "gitlab.com", "codeberg.org", "bitbucket.org", "huggingface.co"))
MAX_DEPTH = 4
MAX_INCLUDED = 20
MAX_LINE = 2_000
# Looking back one character, not over all white space before it: a line of a million blanks costs nothing.
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$")
_HASHES = re.compile(r"(?<=\s)--hash[= ]\S+")
# In an address, white space could end a line of the resolver's file, and ${NAME} would be read from our environment.
_NEVER_IN_URL = re.compile(r"[\s\\${}\x00-\x20\x7f]")
_INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host")
_QUIET_OPTIONS = ("--pre", "--prefer-binary", "--only-binary", "--no-binary", "--use-feature", "--require-hashes", "--upgrade", "-U")
_GIT = re.compile(r"git\+(?P<url>https?://[^@\s#]+|ssh://[^\s#]+?)(?:@(?P<ref>[^@#\s]+))?(?:#(?P<rest>\S+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Asked:
    """One requirement and who asks it; `text` is what the resolver gets."""

    asker: str
    file: str
    line: int
    name: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


Include = Callable[[str], str | None]


def read(
    text: str,
    *,
    asker: str,
    file: str,
    include: Include | None = None,
    url_hosts: Iterable[str] = (),
    depth: int = 0,
    included: dict[str, bool] | None = None,
) -> tuple[list[Asked], list[Finding]]:
    """The requirements of a requirements.txt; `include` gives the text of another file of the same tree, each at most once
    (`included`: whether it is still being read, which would be a loop)."""
    asked: list[Asked] = []
    found: list[Finding] = []
    hosts = frozenset(url_hosts)
    included = {file: True} if included is None else included
    for number, line in _lines(text):
        if number > MAX_LINES:
            found.append(_finding(ERROR, "requirements_too_long", asker, file, number, f"holds more than {MAX_LINES} lines", "Shorten it."))
            break
        if len(line) > MAX_LINE:
            found.append(_finding(ERROR, "requirement_unreadable", asker, file, number, f"has a line of more than {MAX_LINE} characters", "Shorten it."))
        elif line.startswith(("-r", "--requirement")) and not line.startswith("--require-hashes"):
            more, troubles = _included(line, number, asker=asker, file=file, include=include, hosts=hosts, depth=depth, included=included)
            asked += more
            found += troubles
        elif line.startswith("-"):
            found.append(_option(line, number, asker, file))
        else:
            one = _one(line, number, asker, file, hosts)
            if isinstance(one, Asked):
                asked.append(one)
            else:
                found.append(one)
    return asked, found


def read_pyproject(text: str, *, asker: str, file: str = "pyproject.toml", url_hosts: Iterable[str] = ()) -> tuple[list[Asked], list[Finding]]:
    """The requirements under [project] of a pyproject.toml."""
    try:
        listed = tomllib.loads(text).get("project", {}).get("dependencies", [])
        lines = [str(one) for one in listed][:MAX_LINES]
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, RecursionError):
        return [], [_finding(ERROR, "pyproject_unreadable", asker, file, 0, "cannot be read as TOML", "Ask its author to mend it.")]
    asked: list[Asked] = []
    found: list[Finding] = []
    for line in lines:
        if len(line) > MAX_LINE:
            found.append(_finding(ERROR, "requirement_unreadable", asker, file, 0, f"has a requirement of more than {MAX_LINE} characters", "Shorten it."))
            continue
        one = _one(_COMMENT.sub("", line).strip(), 0, asker, file, frozenset(url_hosts))
        if isinstance(one, Asked):
            asked.append(one)
        else:
            found.append(one)
    return asked, found


def version_in(text: str | None) -> str:
    """[project] version of a pyproject.toml, or ""."""
    try:
        version = tomllib.loads(text or "").get("project", {}).get("version", "")
    except (tomllib.TOMLDecodeError, AttributeError, RecursionError):
        return ""
    return version if isinstance(version, str) and len(version) <= 60 and version.isprintable() else ""


def plain(lines: Iterable[str], *, asker: str, file: str) -> list[Asked]:
    """Requirements that this installation itself states; raises InvalidRequirement."""
    return [Asked(asker, file, 0, canonicalize_name(Requirement(line).name), str(Requirement(line))) for line in lines]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and content of every logical line: continued lines are one, comments and blank lines none."""
    kept, start = "", 0
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        start = start or number
        if raw.rstrip().endswith("\\") and not raw.lstrip().startswith("#"):
            kept += raw.rstrip()[:-1] + " "
            continue
        line = _HASHES.sub("", _COMMENT.sub("", kept + raw)).strip()
        if line:
            yield start, line
        kept, start = "", 0
    if kept.strip():
        yield start, _HASHES.sub("", _COMMENT.sub("", kept)).strip()


def _included(
    line: str, number: int, *, asker: str, file: str, include: Include | None, hosts: frozenset[str], depth: int, included: dict[str, bool]
) -> tuple[list[Asked], list[Finding]]:
    name = re.sub(r"^(-r|--requirement)[=\s]*", "", line).strip().strip("\"'")
    folder = file.rpartition("/")[0]
    path = "/".join(part for part in (folder, name.removeprefix("./")) if part)
    outside = not name or name.startswith(("/", "\\", "~")) or ".." in re.split(r"[/\\]", name) or ":" in name
    if included.get(path) is False:
        return [], []
    endless = path in included or depth >= MAX_DEPTH or len(included) > MAX_INCLUDED
    text = None if outside or include is None or endless else include(path)
    if text is None:
        return [], [
            _finding(ERROR, "requirement_file_missing", asker, file, number, f"includes {name[:120]!r}, which is not in its tree", "Ask its author to mend it.")
        ]
    included[path] = True
    found = read(text, asker=asker, file=path, include=include, url_hosts=hosts, depth=depth + 1, included=included)
    included[path] = False
    return found


def _option(line: str, number: int, asker: str, file: str) -> Finding:
    word = re.split(r"[=\s]", line, maxsplit=1)[0]
    if word in ("-e", "--editable"):
        return _finding(
            ERROR,
            "requirement_editable",
            asker,
            file,
            number,
            f"asks for an editable install ({line[:120]})",
            "Editable installs cannot be locked; name the package.",
        )
    if word.startswith(_INDEX_OPTIONS):
        why = f"names a package index of its own ({word}); it is left out"
        return _finding(WARNING, "requirement_index", asker, file, number, why, "If its packages are nowhere else, add the index to BUILD_PACKAGE_INDEX.")
    if word in ("-c", "--constraint"):
        return _finding(
            WARNING,
            "requirement_constraint",
            asker,
            file,
            number,
            f"names a constraints file ({line[:120]}); it is left out",
            "State the constraint yourself if it matters.",
        )
    if word in _QUIET_OPTIONS:
        return _finding(WARNING, "requirement_option", asker, file, number, f"sets {word} for the installer; it is left out", "")
    return _finding(ERROR, "requirement_unreadable", asker, file, number, f"has a line that is no requirement: {line[:120]!r}", "Ask its author to mend it.")


def _one(line: str, number: int, asker: str, file: str, hosts: frozenset[str]) -> Asked | Finding:
    bare = _GIT.fullmatch(line)
    if bare:
        name = canonicalize_name(_egg(bare["rest"]) or bare["url"].rstrip("/").rpartition("/")[2].removesuffix(".git"))
        line = f"{name} @ {line}"
    elif re.match(r"(\.{0,2}[/\\]|~|file:|[A-Za-z]:[\\/])", line) or (line.endswith((".whl", ".tar.gz", ".zip")) and "://" not in line):
        return _finding(
            ERROR, "requirement_path", asker, file, number, f"asks for a file of some machine ({line[:120]!r})", "Name the package and its version."
        )
    elif re.match(r"https?://", line):
        return _bare_url(line, number, asker, file, hosts)
    try:
        parsed = Requirement(line)
    except (InvalidRequirement, RecursionError) as error:
        why = f"has a line that is no requirement: {line[:120]!r} ({str(error).partition(chr(10))[0][:120]})"
        return _finding(ERROR, "requirement_unreadable", asker, file, number, why, "Ask its author to mend it, or use another version of the pack.")
    if parsed.url:
        trouble = _url_trouble(parsed.url, number, asker, file, hosts)
        if trouble is not None:
            return trouble
    return Asked(asker, file, number, canonicalize_name(parsed.name), str(parsed))


def _bare_url(line: str, number: int, asker: str, file: str, hosts: frozenset[str]) -> Asked | Finding:
    trouble = _url_trouble(line, number, asker, file, hosts)
    if trouble is not None:
        return trouble
    wheel = re.match(r"([A-Za-z0-9._]+?)-\d", urlsplit(line).path.rpartition("/")[2])
    if wheel is None:
        return _finding(ERROR, "requirement_unreadable", asker, file, number, f"names no package for {line[:120]!r}", "Write it as: name @ address.")
    name = canonicalize_name(wheel[1])
    return Asked(asker, file, number, name, f"{name} @ {line}")


def _url_trouble(url: str, number: int, asker: str, file: str, hosts: frozenset[str]) -> Finding | None:
    if _NEVER_IN_URL.search(url):
        return _finding(ERROR, "requirement_url", asker, file, number, f"asks for {url[:120]!r}", "Write the address plainly, without blanks or variables.")
    if url.startswith("git+"):
        match = _GIT.fullmatch(url)
        ref = (match["ref"] or "") if match else ""
        if match is None or not match["url"].startswith("https://") or "@" in match["url"].partition("://")[2]:
            return _finding(ERROR, "requirement_url", asker, file, number, f"asks for {url[:120]!r}", "Only git+https:// with a full commit can be locked.")
        if not _COMMIT.fullmatch(ref):
            why = f"asks for {url[:120]!r} without a full commit, so it is another thing every day"
            return _finding(ERROR, "requirement_git_unpinned", asker, file, number, why, "Pin it: git+https://…@<40 hex digits>.")
        # A host named by a stranger may be one inside our network; the big forges are not.
        if (urlsplit(match["url"]).hostname or "") not in hosts | FORGES:
            return _host_refused(url, number, asker, file)
        return None
    if urlsplit(url).scheme != "https":
        return _finding(ERROR, "requirement_url", asker, file, number, f"asks for {url[:120]!r}", "Only https:// addresses can be locked.")
    if "@" in urlsplit(url).netloc:
        return _finding(ERROR, "requirement_url", asker, file, number, "asks for an address with a password", "A lock is for everybody to read.")
    if (urlsplit(url).hostname or "") not in hosts:
        return _host_refused(url, number, asker, file)
    return None


def _host_refused(url: str, number: int, asker: str, file: str) -> Finding:
    why = f"asks for a package from {urlsplit(url).hostname!r} ({url[:120]!r}), which is not on the list of allowed hosts"
    return _finding(ERROR, "requirement_host", asker, file, number, why, "If you trust it, add the host to BUILD_REQUIREMENT_HOSTS.")


def _egg(rest: str | None) -> str:
    match = re.search(r"egg=([A-Za-z0-9._-]+)", rest or "")
    return match[1] if match else ""


def _finding(level: str, code: str, asker: str, file: str, number: int, why: str, suggestion: str) -> Finding:
    where = f"{file} line {number}" if number else file
    return finding(level, code, f"{where} of {asker[:200]} {why}.", suggestion, field=f"{file}:{number}" if number else file, asker=asker[:200])
