# syntax=docker/dockerfile:1
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/bridge \
    && /opt/bridge/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY docs docs
COPY bridge bridge
RUN /opt/bridge/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim-bookworm
COPY --from=build /opt/bridge /opt/bridge
RUN useradd --system --uid 10001 --no-create-home bridge \
    && install --directory --owner=bridge --group=bridge --mode=0700 /data
ENV PATH=/opt/bridge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    BRIDGE_DATA_DIR=/data \
    BRIDGE_LOG_FORMAT=json
USER 10001
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('BRIDGE_ADMIN_PORT', '9090') + '/healthz')"]
ENTRYPOINT ["bridge"]
CMD ["run"]
