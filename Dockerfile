# One image for the web process (the default command), the worker and the migrations; docs/deployment.md has the commands.

FROM python:3.11-slim-bookworm AS packages
COPY requirements.txt /tmp/
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r /tmp/requirements.txt

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="SyncApp" \
      org.opencontainers.image.description="Authoritative shared clocks for many clients" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
# A number, so that an orchestrator can check that it is not root.
RUN groupadd --gid 10001 syncapp && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin syncapp
COPY --from=packages /venv /venv
WORKDIR /app
COPY LICENSE gunicorn.conf.py wsgi.py ./
COPY lua lua
COPY migrations migrations
COPY syncapp syncapp
COPY deploy/healthcheck.py deploy/
# The user cannot write here, so Python could not keep its compiled files later.
RUN python -m compileall -q syncapp gunicorn.conf.py wsgi.py
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 CMD ["python", "deploy/healthcheck.py"]
CMD ["python", "-m", "syncapp", "gunicorn", "wsgi:app"]
