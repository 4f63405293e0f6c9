# A worker with the video plugin. Add plugins of your own to the `pip install` below.
FROM python:3.13-slim AS build
RUN python -m venv /opt/rmqjobs
WORKDIR /src
# The build has no git: docker build --build-arg VERSION=1.2.3
ARG VERSION=0.1.0.dev0
ENV SETUPTOOLS_SCM_PRETEND_VERSION=$VERSION
COPY pyproject.toml README.md LICENSE ./
COPY framework framework
COPY plugins plugins
RUN /opt/rmqjobs/bin/pip install --no-cache-dir . ./plugins/rmqjobs-video

FROM python:3.13-slim
# A user with a name: `rmqjobs dlq` writes into the journal who did what.
RUN useradd --create-home --uid 10001 rmqjobs && install -d -o rmqjobs -g rmqjobs /videos
COPY --from=build /opt/rmqjobs /opt/rmqjobs
ENV PATH=/opt/rmqjobs/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/rmqjobs
STOPSIGNAL SIGTERM
ENTRYPOINT ["rmqjobs"]
CMD ["worker"]
