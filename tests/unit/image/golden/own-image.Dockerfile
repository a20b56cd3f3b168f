# check=skip=UndefinedVar;error=true
FROM me/img:1

USER 0:0
# Prepend the harness to the image's PYTHONPATH, if it sets one.
ENV PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 PYTHONHASHSEED=0 PYTHONPATH=/opt/detbuild/harness${PYTHONPATH:+:$PYTHONPATH}

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
