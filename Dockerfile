# The server on a CPU: docker build -t energy-dllm . && docker run -p 127.0.0.1:8000:8000 energy-dllm
FROM python:3.12-slim
RUN useradd --create-home reader
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY energy_dllm energy_dllm
RUN pip install --no-cache-dir '.[serve]'
WORKDIR /home/reader
USER reader
RUN mkdir .cache
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["energy-dllm"]
CMD ["serve", "stories", "shakespeare", "--host", "0.0.0.0"]
