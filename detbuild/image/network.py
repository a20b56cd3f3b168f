"""The host's certificates, proxies and pip settings: what pip steps of a build borrow and never keep."""

from __future__ import annotations

import configparser
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from detbuild.image.mounts import CA, CONSTRAINTS, PIP_CONF, SECRETS_DIR, WHEELS_DIR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_CA_VARIABLES: Final = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_SYSTEM_CA: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, Red Hat
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
)
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}

# pip's options that say where packages come from and how patiently to fetch them. The others (target, log,
# cache-dir) are about the host's own disk.
_TAKEN: Final = frozenset(
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
_PLACES: Final = frozenset({"index-url", "extra-index-url", "find-links", "no-index"})
_ALIASES: Final = {"default-timeout": "timeout", "pypi-url": "index-url"}
_OURS: Final = {"timeout": "60", "retries": "5"}
_QUIET: Final = {
    "disable-pip-version-check": "true",
    "no-input": "true",
    "progress-bar": "off",
    "root-user-action": "ignore",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Borrowed settings; they count neither for the tag nor for what the image holds."""

    pip: Mapping[str, str] = field(default_factory=dict, repr=False)  # option -> value; may hold passwords
    ca: bytes = b""
    constraints: bytes = b""
    wheel_dirs: tuple[Path, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def default_index_only(self) -> bool:
        """The host names no place of its own where packages come from."""
        return not self.pip.keys() & _PLACES

    def secrets(self) -> dict[str, bytes]:
        """Files for the pip steps by the name they have in /run/secrets."""
        conf = dict(self.pip)
        if self.ca:
            conf["cert"] = f"{SECRETS_DIR}/{CA}"
        if self.constraints:
            conf["constraint"] = f"{SECRETS_DIR}/{CONSTRAINTS}"
        # Empty ones are served too: which secrets there are must not show in the Dockerfile.
        return {PIP_CONF: _ini({**_OURS, **conf, **_QUIET}), CA: self.ca, CONSTRAINTS: self.constraints}


def pip_config_files(environ: Mapping[str, str], *, home: Path, prefix: Path) -> tuple[Path, ...]:
    """Files that pip on this host would read, in its order: later ones win.

    Args:
        environ: The caller's environment.
        home: The caller's home directory.
        prefix: `sys.prefix` of the Python whose pip is meant.
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


def host_network(
    environ: Mapping[str, str], files: Iterable[Path], *, system_ca: Iterable[Path] = _SYSTEM_CA
) -> NetworkSettings:
    """Read what this host says about its network.

    Args:
        environ: The caller's environment.
        files: pip's configuration files, later ones win; those that are missing are passed over.
        system_ca: Where this host may keep its certificates.
    """
    options = _pip_options(environ, files)
    links = options.pop("find-links", "").split()
    wheel_dirs = tuple(path for link in links if (path := _local(link)) and path.is_dir())
    remote = [link for link in links if urlsplit(link).scheme in {"http", "https"}]
    named = [options.pop("cert", ""), *(environ.get(name, "") for name in _CA_VARIABLES)]
    constraints = b"\n".join(_content(Path(path)) for path in options.pop("constraint", "").split())
    proxies = _proxies(environ)
    return NetworkSettings(
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
    renamed = {_ALIASES.get(name, name): value for name, value in merged.items()}
    return {name: value for name, value in renamed.items() if name in _TAKEN | {"cert"}}


def _from_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(_content(path).decode("utf-8", "replace"))
    except configparser.Error:
        return {}  # pip itself will say so, with the place, when the caller uses it
    sections = [dict(parser[name]) for name in ("global", "install") if parser.has_section(name)]
    return {name.replace("_", "-"): value for section in sections for name, value in section.items()}


def _reachable(options: Mapping[str, str]) -> dict[str, str]:
    """Without indexes that are folders of this host: no container can open them."""
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
    """Both spellings of each, since programs disagree about which one they read."""
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
        f"{name} names this host's loopback address, which a build step cannot reach" for name in loopback
    )


def _ini(options: Mapping[str, str]) -> bytes:
    parser = configparser.RawConfigParser()
    parser["global"] = dict(options)
    text = io.StringIO()
    parser.write(text)
    return text.getvalue().encode()


def _first_content(paths: Iterable[Path]) -> bytes:
    return next((content for path in paths if (content := _content(path))), b"")


def _content(path: Path) -> bytes:
    """Empty when it cannot be read: these files are the host's, and pip says more about them than we can."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
