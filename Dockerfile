# The environment of a sweep as an image, for kuberay.yaml: docker build -t REGISTRY/unlearning:2.60.0 .
# The tag names the version of Ray in requirements.lock, which head, workers and the file must share.
FROM python:3.12-slim

RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make wget && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --create-home ray
USER ray
WORKDIR /home/ray/unlearning

# What changes least comes first, so that a change of the code does not install everything again.
COPY --chown=ray requirements.lock ./
RUN python -m venv .venv && .venv/bin/pip install -q --no-cache-dir -r requirements.lock
COPY --chown=ray Makefile pyproject.toml README.md LICENSE ./
COPY --chown=ray unlearn_core unlearn_core
COPY --chown=ray sweeps sweeps
COPY --chown=ray analysis analysis
RUN .venv/bin/pip install -q --no-cache-dir --no-deps -e .
ENV PATH=/home/ray/unlearning/.venv/bin:$PATH RAY_USAGE_STATS_ENABLED=0
