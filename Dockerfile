# A service that scores text while it is typed, by a model file and without PyTorch: examples/token_service.py.
#
#   rnncore train corpus.txt --out model.onnx
#   docker build -t token-service .
#   docker run --rm -p 8000:8000 -v "$PWD/model.onnx:/app/model.onnx:ro" token-service
#
# Another service differs in the files that are copied into /app and in the last line.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml PACKAGE.md LICENSE ./
COPY rnncore rnncore
COPY export export
COPY runtime runtime
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
WORKDIR /app
COPY --from=build /wheels /wheels
COPY constraints.txt ./
RUN python -m pip install --no-cache-dir -c constraints.txt "$(ls /wheels/rnncore-*.whl)[service]"
COPY examples/token_service.py examples/small_model.py ./
RUN useradd --system service
USER service
# The tokenizer's threads do not survive a fork, and one call of the model takes one thread.
# onnxruntime's own builds send data about their use to Microsoft unless they are told not to (docs/guides/security.md).
ENV TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=3)"]
CMD ["python", "token_service.py", "--model", "model.onnx", "--host", "0.0.0.0", "--port", "8000", "--seconds", "0"]
