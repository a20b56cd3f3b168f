"""Hints for errors with a known cause, and which errors are transient, so that a retry may succeed.

All rules match the text of an error. So they work for exceptions, for errors relayed by a data loader's
process, and for the last lines of a script's output.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.errors import HarnessError, StorageError
from determined._contract.run_info import CONTAINER_RUN_DIR, RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Modules whose distribution has another name.
DISTRIBUTIONS = {
    "Crypto": "pycryptodome",
    "Levenshtein": "python-Levenshtein",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "hydra": "hydra-core",
    "igraph": "python-igraph",
    "jwt": "PyJWT",
    "mpl_toolkits": "matplotlib",
    "pkg_resources": "setuptools",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "pynvml": "nvidia-ml-py",
    "pytorch_lightning": "pytorch-lightning",
    "ruamel": "ruamel.yaml",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "umap": "umap-learn",
    "usb": "pyusb",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}
_CHAIN = 5  # causes of an error that are searched
_SEARCHED = 20_000  # characters at the end of a text
_GPU_MEMORY = "lower the batch size, or use smaller layers: the GPU's memory is full"
_HOST_MEMORY = "lower the batch size or the number of data loader workers: the host's memory is full"
_FILES = "call torch.multiprocessing.set_sharing_strategy('file_system'), or use fewer workers"
_THREADS = "use fewer threads and processes: their number is limited"
_PACKAGES = {  # Debian packages of libraries that wheels do not contain
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libsndfile.so": "libsndfile1",
    "libsndfile.so.1": "libsndfile1",
    "libsox.so": "libsox-dev",
    "libopenblas.so.0": "libopenblas0",
    "libstdc++.so.6": "libstdc++6",
    "libnuma.so.1": "libnuma1",
    "libaio.so.1": "libaio1",
    "libmpi.so.40": "libopenmpi3",
    "libibverbs.so.1": "libibverbs1",
}
_PATH = r"(?:[^\n]*?: *['\"](?P<path>[^'\"\n]+)['\"])?"
_SHARED_MEMORY = (
    "out of shared memory|insufficient shared memory|unable to open shared memory object"
    "|unable to write to file </torch_|killed by signal: Bus error|Bus error \\(core dumped\\)"
)
_GPU_FULL = (
    "(CUDA|HIP) out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|OOM when allocating"
)
_HOST_FULL = "killed by signal: Killed|Cannot allocate memory|DefaultCPUAllocator: can't allocate memory"
_NO_HOST = (
    "gaierror|Name or service not known|Temporary failure in name resolution|NameResolutionError"
    "|No address associated with hostname|Could not resolve host|nodename nor servname|Network is unreachable"
)
_NO_GPU = "Torch not compiled with CUDA enabled|Found no NVIDIA driver|No CUDA GPUs are available"
_NUMBERS = {
    *(errno.EAGAIN, errno.EBUSY, errno.EIO, errno.EINTR, errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.EPIPE, errno.EADDRINUSE),
    *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH),
    *(errno.EREMOTEIO, errno.ETIMEDOUT),
}
# Network clients' classes, which have no common base class, by words in their names.
_NAMES = re.compile(
    r"Connect|Time(d?)_?out|Network|Socket|SSL|HTTP(S?)(Status|Response|Error)|HTTPError|URLError|Transport"
    r"|RemoteDisconnected|IncompleteRead|ChunkedEncoding|Throttl|Unavailable|RateLimit|TooManyRequests|Retry"
    r"|gaierror|herror|Rpc|DistStore|DistBackend|Proxy|ServiceRequest|BrokenPipe"
)
_WORDS = re.compile(
    r"timed? ?-?out|temporary failure|name or service not known|could not resolve|nameresolution|gaierror"
    r"|connection (refused|reset|aborted|error|broken)|connectionerror|newconnection|max retries exceeded"
    r"|network is unreachable|no route to host|broken pipe|remote end closed|unexpected eof|ssl error|ssleof"
    r"|no space left on device|disk quota exceeded|input/output error|stale file|read-only file system"
    r"|too many requests|service unavailable|bad gateway|gateway time|internal server error|http error 5"
    r"|temporarily unavailable|try again|too many open files|address already in use"
    r"|nccl error|ncclremoteerror|ncclsystemerror|uncorrectable ecc|unspecified launch failure"
    r"|busy or unavailable",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where the failed code ran."""

    container: bool
    directory: str  # working directory
    user: str  # uid:gid


def here() -> Where:
    """Describe this process."""
    return Where(
        container=os.environ.get(RUN_DIR_VARIABLE) == CONTAINER_RUN_DIR,
        directory=_directory(),
        user=f"{os.getuid()}:{os.getgid()}",
    )


def _directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # user code removed it
        return "?"


def hint_of(error: BaseException, where: Where) -> str:
    """Return the hint for an error or one of its causes; "" if no cause is known."""
    if isinstance(error, MemoryError):
        return _HOST_MEMORY
    return next(filter(None, (hint_for(text, where) for text in _texts(error))), "")


def hint_for(text: str, where: Where) -> str:
    """Return the hint for the text of an error, or the end of a program's output."""
    shown = text[-_SEARCHED:]
    for pattern, hint in _RULES:
        found = re.search(pattern, shown)
        if found and (text_of_hint := hint(found, where)):
            return text_of_hint
    return ""


def _texts(error: BaseException | None) -> Iterator[str]:
    """Yield the texts of an error and of its causes."""
    for _ in range(_CHAIN):
        if error is None:
            return
        program = " (subprocess.py)" if _of_subprocess(error) else ""
        yield f"{type(error).__name__}: {error}{program}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _of_subprocess(error: BaseException) -> bool:
    """Whether starting a program failed."""
    trace, file = error.__traceback__, ""
    while trace is not None:
        file, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return file.endswith("subprocess.py")


def _missing_file(found: re.Match[str], where: Where) -> str:
    path = found["path"]
    if "subprocess.py" in found.string and "/" not in path:
        get = "use an image that has" if where.container else "install"
        return f"{get} the program `{path}`" + (" (environment.image)" if where.container else "")
    if not where.container:
        relative = not path.startswith("/")
        return f"check the path: it is relative to {where.directory}" if relative else ""
    if path.startswith("~"):
        return f"write the full path instead of `~`, which Python does not expand, and {_mount('')}"
    if path.startswith("/"):
        return (
            f"{_mount(path)}: the container has no access to the host's files; it runs in {where.directory}"
        )
    outside = not os.path.normpath(Path(where.directory, path)).startswith(f"{where.directory}/")
    why = "the container has no other directory above its context" if outside else "check .detignore"
    return (
        f"put `{path}` into the context directory ({why}), or {_mount('')}; "
        f"the working directory of the container is {where.directory}"
    )


def _mount(path: str) -> str:
    shown = f"`{path}` or a directory above it" if path else "its directory"
    return f"mount {shown} with bind_mounts" + (", or put it into the context directory" if path else "")


def _no_permission(found: re.Match[str], where: Where) -> str:
    shown = f"`{found['path']}`" if found["path"] else "the file"
    if where.container:
        return (
            f"make {shown} accessible to {where.user}, the container's user without root privileges, "
            f"or write below {where.directory}"
        )
    return f"make {shown} accessible to user {where.user}"


def _read_only(found: re.Match[str], where: Where) -> str:
    shown = f"`{found['path']}`" if found["path"] else "there"
    if where.container:
        return f"write below {where.directory}, or mount {shown} with `read_only: false` in bind_mounts"
    return f"write to another directory: the file system of {shown} is read-only"


def _no_space(found: re.Match[str], where: Where) -> str:
    path = found["path"] or ""
    if path.startswith(("/dev/shm", "/torch_")):  # noqa: S108  (it is named, not used)
        return _shared_memory(found, where)
    return "free space on the disk" + (f" of `{path}`" if path else "")


def _shared_memory(_found: re.Match[str], where: Where) -> str:
    if where.container:
        return "raise resources.shm_size in the experiment config, or use fewer data loader workers"
    return "use fewer data loader workers: /dev/shm of this host is full"


def _unknown_host(_found: re.Match[str], where: Where) -> str:
    if where.container:
        return (
            "check the name and the container's network: `network_mode` is set in the host's config.yaml, "
            "proxies in environment_variables; the host's /etc/hosts is not used"
        )
    return "check the name and the network of this host"


def _no_answer(found: re.Match[str], where: Where) -> str:
    if where.container and re.search(r"localhost|127\.0\.0\.1|\[?::1\b", found.string):
        return (
            "write the host's address instead of localhost, which is the container itself, "
            "or set `network_mode: host` in the host's config.yaml"
        )
    return ""


def _shared_library(found: re.Match[str], where: Where) -> str:
    library = found["library"]
    if library.startswith(("libcuda.so", "libnvidia")):
        return "set resources.slots_per_trial to 1 or more: only GPU containers have the driver's libraries"
    if "cv2" in found.string or library == "libGL.so.1":
        headless = "replace opencv-python by opencv-python-headless in requirements.txt"
    else:
        headless = ""
    package = _PACKAGES.get(library)
    named = f"the Debian package {package}" if package else f"the system library {library}"
    get = f"use an image with {named} (environment.image)" if where.container else f"install {named}"
    return ", or ".join(filter(None, (headless, get)))


def _text_encoding(_found: re.Match[str], where: Where) -> str:
    also = ", or set PYTHONUTF8=1 in environment.environment_variables" if where.container else ""
    return f"name the encoding, e.g. open(path, encoding='utf-8'){also}"


def _locale(_found: re.Match[str], where: Where) -> str:
    if where.container:
        return "set LC_ALL=C.UTF-8, a locale of every image, in environment.environment_variables"
    return "set LC_ALL=C.UTF-8, or install the locale"


def _no_user(_found: re.Match[str], where: Where) -> str:
    return f"read $USER or $HOME instead: uid {where.user.partition(':')[0]} has no entry in /etc/passwd"


def _always(text: str) -> Callable[[re.Match[str], Where], str]:
    return lambda _found, _where: text


# Patterns, compiled when an error is first searched for them.
_RULES: tuple[tuple[str, Callable[[re.Match[str], Where], str]], ...] = (
    (_SHARED_MEMORY, _shared_memory),
    (_GPU_FULL, _always(_GPU_MEMORY)),
    (_HOST_FULL, _always(_HOST_MEMORY)),
    (r"(?P<library>lib[\w.+-]+\.so[\w.]*): cannot open shared object file", _shared_library),
    (rf"No space left on device{_PATH}", _no_space),
    (rf"Read-only file system{_PATH}", _read_only),
    (rf"Permission denied{_PATH}", _no_permission),
    (r"No such file or directory: *b?['\"](?P<path>[^'\"\n]+)['\"]", _missing_file),
    (r"(?P<path>/[^\s:;'\"]+)[:;] No such file or directory", _missing_file),
    (_NO_HOST, _unknown_host),
    (r"Connection refused", _no_answer),
    (r"unsupported locale setting", _locale),
    (r"Unicode(?:En|De)codeError: 'ascii' codec", _text_encoding),
    (r"getpwuid\(\): uid not found|getpwuid: uid not found", _no_user),
    (r"Too many open files", _always(_FILES)),
    (r"can't start new thread|Resource temporarily unavailable", _always(_THREADS)),
    (_NO_GPU, _always("set resources.slots_per_trial to 1 or more, or use context.device, not 'cuda'")),
)


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one of its causes, is due to a network, a disk or a time-out."""
    return any(map(_is_transient, _chain(error)))


def sounds_transient(text: str) -> bool:
    """The same for the text of an error or the end of a program's output."""
    return _WORDS.search(text) is not None


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, HarnessError):
        return isinstance(error, StorageError)
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return True
    names = (cls.__name__ for cls in type(error).__mro__[:-3] or type(error).__mro__[:1])
    return any(map(_NAMES.search, names)) or sounds_transient(str(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
