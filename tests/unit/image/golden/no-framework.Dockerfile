# check=error=true
FROM python:3.11-slim-bookworm

ENV LANG=C.UTF-8 LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 PYTHONHASHSEED=0 PYTHONPATH=/opt/detbuild/harness PATH=/opt/detbuild/venv/bin:$PATH

RUN python3 -m venv /opt/detbuild/venv

# The .pth file keeps the harness importable if the config sets PYTHONPATH.
RUN --mount=type=bind,source=harness,target=/build/harness \
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10) and "detbuild needs Python 3.10 or newer in the image")' \
    && mkdir -p /opt/detbuild/harness /run/determined/workdir && chmod 1777 /run/determined/workdir \
    && cp -R /build/harness/. /opt/detbuild/harness \
    && python3 -c 'import pathlib, site; sites = pathlib.Path(site.getsitepackages()[0]); \
sites.mkdir(parents=True, exist_ok=True); (sites / "detbuild.pth").write_text("/opt/detbuild/harness")' \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/detbuild/harness

WORKDIR /run/determined/workdir
COPY context/ /run/determined/workdir/

USER 65533:65533
ENTRYPOINT ["python3", "/opt/detbuild/harness/determined/exec"]
