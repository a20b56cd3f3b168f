"""What a build takes from its host: certificates, proxies, pip's settings, credentials and local wheels.

pip uses them in the build, and none of them is kept in the image: settings and credentials are served as
build secrets, and wheels are mounted.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from detbuild.context.snapshot import ContextSnapshot, Entry, hash_file, raw, read, shown, text
from detbuild.credentials import has_query_credential, replaced_credentials
from detbuild.errors import ContextError
from detbuild.events import Warned
from detbuild.image.requirements import normalized, requirement_of
from determined._contract.untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from packaging.specifiers import SpecifierSet

    from detbuild.context.snapshot import HashCache

# Paths in the build, which the template mounts.
SECRETS_DIR: Final = "/run/secrets"
WHEELS_DIR: Final = "/build/wheels"
FRAMEWORK_DIR: Final = "/build/framework"
_PIP_CONF: Final = "pip.conf"
_CA: Final = "ca.pem"
_CONSTRAINTS: Final = "constraints.txt"
ENVIRONMENT: Final = "environment"  # proxies and credentials, as a shell reads them
SECRETS: Final = (_PIP_CONF, _CA, _CONSTRAINTS, ENVIRONMENT)
_CA_VARIABLES: Final = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_SYSTEM_CA: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, Red Hat
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
)
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
# pip's options for indexes and downloads. Others (target, log, cache-dir) concern the host's disk.
_USED_OPTIONS: Final = frozenset(
    {
        "index-url",
        "extra-index-url",
        "trusted-host",
        "find-links",
        "constraint",
        "no-index",
        "proxy",
        "timeout",
        "retries",
        "prefer-binary",
        "only-binary",
        "no-binary",
        "pre",
    }
)
_INDEX_OPTIONS: Final = frozenset({"index-url", "extra-index-url", "find-links", "no-index"})
_OPTION_ALIASES: Final = {"default-timeout": "timeout", "pypi-url": "index-url"}
_PIP_DEFAULTS: Final = {"timeout": "60", "retries": "5"}
_PIP_QUIET: Final = {
    "disable-pip-version-check": "true",
    "no-input": "true",
    "progress-bar": "off",
    "root-user-action": "ignore",
}
# Requirements files may have credentials in the URLs of indexes and packages.
CREDENTIAL: Final = "DETBUILD_CREDENTIAL_"
_LIKE_REQUIREMENTS: Final = re.compile(
    r"(?:^|/)(?:[^/]*(?:requirements|constraints|reqs)[^/]*\.(?:txt|in)|requirements/[^/]+\.(?:txt|in))$"
)
_MAX_BYTES: Final = 1 << 20  # bytes; a longer file is data
_BYTE_ORDER_MARKS: Final = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_CONTINUED: Final = re.compile(r"\\\r?\n")
_EDITABLE: Final = re.compile(r"\s*(?:-e|--editable)[\s=\"']*\w+\+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """Settings of the host; the image's tag and content do not depend on them."""

    pip: Mapping[str, str] = field(default_factory=dict, repr=False)  # option -> value; may hold passwords
    ca: bytes = b""
    constraints: bytes = b""
    wheel_dirs: tuple[Path, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def default_index_only(self) -> bool:
        """Whether the host sets no package index of its own."""
        return not self.pip.keys() & _INDEX_OPTIONS

    def secrets(self, credentials: Mapping[str, str]) -> dict[str, bytes]:
        """Return the files of /run/secrets for steps that use the network.

        Args:
            credentials: Variables that replace the credentials in requirements files.
        """
        conf = dict(self.pip)
        if self.ca:
            conf["cert"] = f"{SECRETS_DIR}/{_CA}"
        if self.constraints:
            conf["constraint"] = f"{SECRETS_DIR}/{_CONSTRAINTS}"
        # Empty files are served too, so that the Dockerfile does not depend on which secrets exist.
        return {
            _PIP_CONF: _ini({**_PIP_DEFAULTS, **conf, **_PIP_QUIET}),
            _CA: self.ca,
            _CONSTRAINTS: self.constraints,
            ENVIRONMENT: _exports({**self.proxies, **credentials}),
        }


def _ini(options: Mapping[str, str]) -> bytes:
    from configparser import RawConfigParser

    parser = RawConfigParser()
    parser["global"] = dict(options)
    text = io.StringIO()
    parser.write(text)
    return text.getvalue().encode()


def _exports(variables: Mapping[str, str]) -> bytes:
    """Format variables as a file for a shell."""
    quoted = ((name, value.replace("'", "'\\''")) for name, value in variables.items())
    return "".join(f"export {name}='{value}'\n" for name, value in quoted).encode("utf-8", "surrogateescape")


def pip_config_files(environ: Mapping[str, str], *, home: Path, prefix: Path) -> tuple[Path, ...]:
    """Return the configuration files of pip on this host; later ones win.

    Args:
        environ: The caller's environment.
        home: The caller's home directory.
        prefix: `sys.prefix` of pip's Python.
    """
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == "/dev/null":
        return ()
    site = [
        Path(folder) / "pip" for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if folder
    ]
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [folder / "pip.conf" for folder in site]
    files += [
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        user / "pip" / "pip.conf",
        prefix / "pip.conf",
    ]
    return (*files, Path(named)) if named else tuple(files)


def read_host_settings(
    environ: Mapping[str, str], files: Iterable[Path], *, system_ca: Iterable[Path] = _SYSTEM_CA
) -> HostSettings:
    """Read the network and pip settings of this host.

    Args:
        environ: The caller's environment.
        files: pip's configuration files; later ones win, missing ones are skipped.
        system_ca: Possible certificate bundles of this host.
    """
    options = _pip_options(environ, files)
    links = options.pop("find-links", "").split()
    wheel_dirs = tuple(path for link in links if (path := _local(link)) and path.is_dir())
    remote = [link for link in links if urlsplit(link).scheme in {"http", "https"}]
    named = [options.pop("cert", ""), *(environ.get(name, "") for name in _CA_VARIABLES)]
    constraints = b"\n".join(_content(Path(path)) for path in options.pop("constraint", "").split())
    proxies = _proxies(environ)
    return HostSettings(
        pip={**_reachable(options), **_links(remote, wheel_dirs)},
        ca=_first_content([*(Path(path) for path in named if path), *system_ca]),
        constraints=constraints,
        wheel_dirs=wheel_dirs,
        proxies=proxies,
        warnings=_warnings(proxies, options),
    )


def _pip_options(environ: Mapping[str, str], files: Iterable[Path]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for path in files:
        merged.update(_from_file(path))
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            merged[name[4:].lower().replace("_", "-")] = value
    renamed = {_OPTION_ALIASES.get(name, name): value for name, value in merged.items()}
    return {name: value for name, value in renamed.items() if name in _USED_OPTIONS | {"cert"}}


def _from_file(path: Path) -> dict[str, str]:
    from configparser import Error, RawConfigParser

    parser = RawConfigParser()
    try:
        parser.read_string(_content(path).decode("utf-8", "replace"))
    except Error:
        return {}  # pip itself reports it, with the position
    sections = [dict(parser[name]) for name in ("global", "install") if parser.has_section(name)]
    return {name.replace("_", "-"): value for section in sections for name, value in section.items()}


def _reachable(options: Mapping[str, str]) -> dict[str, str]:
    """Drop indexes that are directories of this host, which a container cannot open."""
    kept = {}
    for name, value in options.items():
        if name in {"index-url", "extra-index-url"}:
            urls = [url for url in value.split() if urlsplit(url).scheme in {"http", "https"}]
            kept.update({name: "\n".join(urls)} if urls else {})
        else:
            kept[name] = value
    return kept


def _links(remote: Sequence[str], wheel_dirs: Sequence[Path]) -> dict[str, str]:
    links = [*remote, WHEELS_DIR] if wheel_dirs else list(remote)
    return {"find-links": "\n".join(links)} if links else {}


def _local(link: str) -> Path | None:
    parts = urlsplit(link)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(link)


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Return proxies in upper and lower case, since programs read either."""
    found = {}
    for name in _PROXIES:
        value = environ.get(name.lower()) or environ.get(name)
        if value:
            found.update({name: value, name.lower(): value})
    return found


def _warnings(proxies: Mapping[str, str], options: Mapping[str, str]) -> tuple[str, ...]:
    loopback = [
        name
        for name, value in {**proxies, "pip's proxy": options.get("proxy", "")}.items()
        if name.upper() != "NO_PROXY"
        and not name.islower()
        and urlsplit(value if "://" in value else f"//{value}").hostname in _LOOPBACK
    ]
    return tuple(
        f"{name} is this host's loopback address, which a build step cannot reach" for name in loopback
    )


def _first_content(paths: Iterable[Path]) -> bytes:
    return next((content for path in paths if (content := _content(path))), b"")


def _content(path: Path) -> bytes:
    """Read a file of the host; empty if unreadable, which pip itself reports."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedCredentials:
    """A context with variables instead of credentials in requirements files, and their values."""

    context: ContextSnapshot
    variables: Mapping[str, str] = field(repr=False)
    warnings: tuple[Warned, ...] = ()


def extract_credentials(context: ContextSnapshot, files: Iterable[str]) -> ExtractedCredentials:
    """Replace credentials in the URLs of requirements files by variables, which pip gets as a build secret.

    pip expands variables such as `${NAME}` in these files.

    Args:
        context: Files of the image.
        files: Paths of its requirements files; files with such names are included.

    Raises:
        ContextError: A credential would still be stored in the image.
    """
    names: dict[str, str] = {}
    chosen = set(files)
    changed: dict[str, Entry] = {}
    for entry in context.entries:
        if entry.kind == "file" and (
            entry.path in chosen or (_LIKE_REQUIREMENTS.search(entry.path) and entry.size <= _MAX_BYTES)
        ):
            without = _without_credentials(entry, names)
            changed.update({entry.path: without} if without is not entry else {})
    if not changed:
        return ExtractedCredentials(context=context, variables={})
    kept = ContextSnapshot(tuple(changed.get(entry.path, entry) for entry in context.entries))
    where = ", ".join(shown(path) for path in changed)
    message = f"credentials of URLs in {where} stay out of the image: pip gets them as a build secret"
    variables = {name: secret for secret, name in names.items()}
    return ExtractedCredentials(context=kept, variables=variables, warnings=(Warned(message),))


def _without_credentials(entry: Entry, names: dict[str, str]) -> Entry:
    """Replace credentials by variables; new ones are added to `names`."""
    body = read(entry)
    codec = next((codec for mark, codec in _BYTE_ORDER_MARKS.items() if body.startswith(mark)), "latin-1")
    text = body.decode(codec, "replace")

    def variable(secret: str) -> str:
        joined = _CONTINUED.sub("", secret)
        name = names.setdefault(joined, f"{CREDENTIAL}{len(names) + 1}")
        return f"${{{name}}}"

    changed = replaced_credentials(text, variable)
    if changed == text:
        return entry
    _check_recorded(entry, text)
    new = changed.encode(codec)
    return replace(entry, size=len(new), sha256=hashlib.sha256(new).hexdigest(), source="", body=new)


def _check_recorded(entry: Entry, text: str) -> None:
    for number, line in enumerate(_CONTINUED.sub("", text).splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        what = ""
        if has_query_credential(line):
            what = "pip stores the query of a URL in the image, and this one has a credential"
        elif _EDITABLE.match(line) and replaced_credentials(line, lambda _: "") != line:
            what = "an editable install stores its URL in the image, and this one has a credential"
        if what:
            hint = "write the credential as `user:password@` before the host, and remove `-e`"
            raise ContextError(f"{shown(entry.path)}:{number}: {what}", hint=hint)


def needed_wheels(
    folders: Iterable[Path],
    lines: Iterable[str] | None,
    *,
    machine: str,
    cuda: bool,
    cache: HashCache | None = None,
) -> ContextSnapshot:
    """Return the wheels of projects in pip's requirements, and of their dependencies.

    Args:
        folders: Local directories of pip's find-links.
        lines: Requirements without options; None selects every wheel.
        machine: Architecture of the image.
        cuda: Whether the image is for GPUs: pip accepts "2.13.0+cpu" for "==2.13.0", and vice versa.
        cache: Hashes of earlier builds; the caller saves it.
    """
    stored = _stored(folders, machine, cuda=cuda)
    required = {name: None for name, *_ in stored} if lines is None else _required(lines)
    chosen: dict[str, Path] = {}
    waiting, seen = list(required), set(required)
    while waiting:
        name = waiting.pop()
        found = {
            path.name: path
            for project, version, path in stored
            if project == name and _allows(required.get(name), version) and path.name not in chosen
        }
        chosen.update(found)
        if len(chosen) < len(stored):  # opening an archive of thousands of files takes time
            fresh = {needed for path in found.values() for needed in _requires(path)} - seen
            seen |= fresh
            waiting += fresh
    return ContextSnapshot(tuple(_wheel_entry(chosen[name], cache) for name in sorted(chosen)))


def _required(lines: Iterable[str]) -> dict[str, SpecifierSet]:
    """Map each project to its combined specifiers."""
    required: dict[str, SpecifierSet] = {}
    for name, specifiers in filter(None, map(requirement_of, lines)):
        required[name] = required[name] & specifiers if name in required else specifiers
    return required


def _allows(specifiers: SpecifierSet | None, version: str) -> bool:
    return specifiers is None or specifiers.contains(version, prereleases=True)


def _stored(folders: Iterable[Path], machine: str, *, cuda: bool) -> list[tuple[str, str, Path]]:
    """Return project, version and path of each suitable wheel; the first directory wins."""
    paths: dict[str, Path] = {}
    for folder in folders:
        paths.update({path.name: path for path in folder.glob("*.whl") if path.name not in paths})
    fitting = (paths[name] for name in sorted(paths) if _fits(paths[name], machine, cuda=cuda))
    parts = ((path, path.name.split("-")) for path in fitting)
    return [(normalized(names[0]), names[1], path) for path, names in parts]


def _fits(path: Path, machine: str, *, cuda: bool) -> bool:
    match path.stem.split("-"):
        case [_, version, *_, _, _, platform]:
            build = version.partition("+")[2]
        case _:
            return False
    if platform != "any" and machine not in platform:
        return False
    return not build.startswith("cpu") if cuda else build.startswith("cpu") or not build.startswith("cu")


def _requires(path: Path) -> Iterator[str]:
    """Yield the projects that a wheel requires, for any marker or extra."""
    import zipfile
    from email.parser import BytesHeaderParser

    try:
        with zipfile.ZipFile(path) as archive:
            metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            headers = BytesHeaderParser().parsebytes(archive.read(metadata))
    except (OSError, zipfile.BadZipFile, StopIteration):
        return
    yield from _required(headers.get_all("Requires-Dist", []))


def _wheel_entry(path: Path, cache: HashCache | None) -> Entry:
    source = raw(str(path.absolute()))
    try:
        if cache is not None:
            sha256, size = cache.sha256(source, path.stat())
        else:
            sha256, seen = hash_file(source)
            size = seen.st_size
    except OSError as error:
        raise ContextError(
            f"cannot read {path}: {reason_of(error)}",
            hint="make it readable, or move it out of pip's find-links",
        ) from error
    return Entry(path.name, "file", size=size, sha256=sha256, source=text(source))
