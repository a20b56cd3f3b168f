# check=error=true
FROM nvidia/cuda:13.0.3-base-ubuntu24.04

ENV LANG=C.UTF-8 LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 PYTHONHASHSEED=0 PYTHONPATH=/opt/detbuild/harness PATH=/opt/detbuild/venv/bin:$PATH

# Unpinned on purpose: mirrors drop old versions with the next update of the release.
# hadolint ignore=DL3008
RUN --mount=type=cache,id=detbuild-apt-ubuntu24.04,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=detbuild-apt-lists-ubuntu24.04,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=secret,id=pip.conf \
    --mount=type=secret,id=ca.pem \
    --mount=type=secret,id=constraints.txt \
    --mount=type=secret,id=environment \
    . /run/secrets/environment && apt-get update && apt-get install -y --no-install-recommends python3 python3-venv

RUN python3 -m venv /opt/detbuild/venv

RUN --mount=type=cache,id=detbuild-pip,target=/root/.cache/pip \
    --mount=type=bind,source=wheels,target=/build/wheels \
    --mount=type=bind,source=framework,target=/build/framework \
    --mount=type=secret,id=pip.conf \
    --mount=type=secret,id=ca.pem \
    --mount=type=secret,id=constraints.txt \
    --mount=type=secret,id=environment \
    . /run/secrets/environment && PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_CACHE_DIR=/root/.cache/pip PIP_BREAK_SYSTEM_PACKAGES=1 \
    pip install -c /build/framework/constraints.txt -r /build/framework/requirements.txt

WORKDIR /run/determined/workdir
RUN --mount=type=cache,id=detbuild-pip,target=/root/.cache/pip \
    --mount=type=bind,source=wheels,target=/build/wheels \
    --mount=type=bind,source=framework,target=/build/framework \
    --mount=type=secret,id=pip.conf \
    --mount=type=secret,id=ca.pem \
    --mount=type=secret,id=constraints.txt \
    --mount=type=secret,id=environment \
    --mount=type=bind,rw,source=requirements,target=/run/determined/workdir \
    . /run/secrets/environment && PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_CACHE_DIR=/root/.cache/pip PIP_BREAK_SYSTEM_PACKAGES=1 \
    pip install -c /build/framework/constraints.txt -r requirements.txt

# The .pth file keeps the harness importable if the config sets PYTHONPATH.
RUN --mount=type=bind,source=harness,target=/build/harness \
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10) and "detbuild needs Python 3.10 or newer in the image")' \
    && mkdir -p /opt/detbuild/harness /run/determined/workdir && chmod 1777 /run/determined/workdir \
    && cp -R /build/harness/. /opt/detbuild/harness \
    && python3 -c 'import pathlib, site; sites = pathlib.Path(site.getsitepackages()[0]); \
sites.mkdir(parents=True, exist_ok=True); (sites / "detbuild.pth").write_text("/opt/detbuild/harness")' \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/detbuild/harness

COPY context/ /run/determined/workdir/

USER 65533:65533
ENTRYPOINT ["python3", "/opt/detbuild/harness/determined/exec"]
