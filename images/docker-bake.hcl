# Made by generate.py from table.json; do not edit.

variable "REPOSITORY" {
  default = "detbuild-environment"
}

target "_environment" {
  context    = "images"
  dockerfile = "Dockerfile"
  target     = "environment"
}

group "cpu" {
  targets = [
    "torch-2-4-cpu",
    "torch-2-5-cpu",
    "torch-2-6-cpu",
    "torch-2-7-cpu",
    "torch-2-8-cpu",
    "torch-2-9-cpu",
    "torch-2-10-cpu",
    "torch-2-11-cpu",
    "torch-2-12-cpu",
    "torch-2-13-cpu",
    "torch-2-14-cpu",
    "torch-2-15-cpu",
    "tensorflow-2-15-cpu",
    "tensorflow-2-16-cpu",
    "tensorflow-2-17-cpu",
    "tensorflow-2-18-cpu",
    "tensorflow-2-19-cpu",
    "tensorflow-2-20-cpu",
    "tensorflow-2-21-cpu",
  ]
}

group "cuda12" {
  targets = [
    "torch-2-4-cu121",
    "torch-2-5-cu124",
    "torch-2-6-cu124",
    "torch-2-7-cu126",
    "torch-2-8-cu128",
    "torch-2-9-cu128",
    "torch-2-10-cu128",
    "tensorflow-2-15-cu122",
    "tensorflow-2-16-cu123",
    "tensorflow-2-17-cu123",
    "tensorflow-2-18-cu125",
    "tensorflow-2-19-cu125",
    "tensorflow-2-20-cu129",
    "tensorflow-2-21-cu129",
  ]
}

group "cuda13" {
  targets = [
    "torch-2-11-cu130",
    "torch-2-12-cu130",
    "torch-2-13-cu130",
    "torch-2-14-cu130",
    "torch-2-15-cu132",
  ]
}

group "default" {
  targets = [
    "torch-2-13-cpu",
    "tensorflow-2-21-cpu",
  ]
}

target "torch-2-4-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.4.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.4-cpu-py311"]
}

target "torch-2-4-cu121" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.1.1-base-ubuntu22.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.4.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.4-cu121-py310"]
}

target "torch-2-5-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.5.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.5-cpu-py311"]
}

target "torch-2-5-cu124" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.4.1-base-ubuntu22.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.5.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.5-cu124-py310"]
}

target "torch-2-6-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.6.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.6-cpu-py311"]
}

target "torch-2-6-cu124" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.4.1-base-ubuntu22.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.6.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.6-cu124-py310"]
}

target "torch-2-7-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.7.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.7-cpu-py311"]
}

target "torch-2-7-cu126" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.6.3-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.7.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.7-cu126-py312"]
}

target "torch-2-8-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.8.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.8-cpu-py311"]
}

target "torch-2-8-cu128" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.8.1-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.8.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.8-cu128-py312"]
}

target "torch-2-9-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.9.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.9-cpu-py311"]
}

target "torch-2-9-cu128" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.8.1-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.9.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.9-cu128-py312"]
}

target "torch-2-10-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.10.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.10-cpu-py311"]
}

target "torch-2-10-cu128" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.8.1-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.10.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.10-cu128-py312"]
}

target "torch-2-11-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.11.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.11-cpu-py311"]
}

target "torch-2-11-cu130" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:13.0.3-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.11.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.11-cu130-py312"]
}

target "torch-2-12-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.12.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.12-cpu-py311"]
}

target "torch-2-12-cu130" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:13.0.3-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.12.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.12-cu130-py312"]
}

target "torch-2-13-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.13.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.13-cpu-py311"]
}

target "torch-2-13-cu130" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:13.0.3-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.13.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.13-cu130-py312"]
}

target "torch-2-14-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.14.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.14-cpu-py311"]
}

target "torch-2-14-cu130" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:13.0.3-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.14.1\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.14-cu130-py312"]
}

target "torch-2-15-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "torch==2.15.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.15-cpu-py311"]
}

target "torch-2-15-cu132" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:13.2.1-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "torch==2.15.0\nnumpy"
  }
  tags = ["${REPOSITORY}:torch2.15-cu132-py312"]
}

target "tensorflow-2-15-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "tensorflow-cpu==2.15.1"
  }
  tags = ["${REPOSITORY}:tensorflow2.15-cpu-py311"]
}

target "tensorflow-2-15-cu122" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.2.2-base-ubuntu22.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "tensorflow[and-cuda]==2.15.1"
  }
  tags = ["${REPOSITORY}:tensorflow2.15-cu122-py310"]
}

target "tensorflow-2-16-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "tensorflow-cpu==2.16.2"
  }
  tags = ["${REPOSITORY}:tensorflow2.16-cpu-py311"]
}

target "tensorflow-2-16-cu123" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.3.2-base-ubuntu22.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "tensorflow[and-cuda]==2.16.2"
  }
  tags = ["${REPOSITORY}:tensorflow2.16-cu123-py310"]
}

target "tensorflow-2-17-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "tensorflow-cpu==2.17.1"
  }
  tags = ["${REPOSITORY}:tensorflow2.17-cpu-py311"]
}

target "tensorflow-2-17-cu123" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.3.2-base-ubuntu22.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "tensorflow[and-cuda]==2.17.1"
  }
  tags = ["${REPOSITORY}:tensorflow2.17-cu123-py310"]
}

target "tensorflow-2-18-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "tensorflow-cpu==2.18.1"
  }
  tags = ["${REPOSITORY}:tensorflow2.18-cpu-py311"]
}

target "tensorflow-2-18-cu125" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.5.1-base-ubuntu22.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "tensorflow[and-cuda]==2.18.1"
  }
  tags = ["${REPOSITORY}:tensorflow2.18-cu125-py310"]
}

target "tensorflow-2-19-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "tensorflow-cpu==2.19.1"
  }
  tags = ["${REPOSITORY}:tensorflow2.19-cpu-py311"]
}

target "tensorflow-2-19-cu125" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.5.1-base-ubuntu22.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "tensorflow[and-cuda]==2.19.1"
  }
  tags = ["${REPOSITORY}:tensorflow2.19-cu125-py310"]
}

target "tensorflow-2-20-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "tensorflow-cpu==2.20.0"
  }
  tags = ["${REPOSITORY}:tensorflow2.20-cpu-py311"]
}

target "tensorflow-2-20-cu129" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.9.1-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "tensorflow[and-cuda]==2.20.0"
  }
  tags = ["${REPOSITORY}:tensorflow2.20-cu129-py312"]
}

target "tensorflow-2-21-cpu" {
  inherits = ["_environment"]
  args = {
    BASE         = "python:3.11-slim-bookworm"
    DEVICE       = "cpu"
    REQUIREMENTS = "tensorflow-cpu==2.21.0"
  }
  tags = ["${REPOSITORY}:tensorflow2.21-cpu-py311"]
}

target "tensorflow-2-21-cu129" {
  inherits = ["_environment"]
  args = {
    BASE         = "nvidia/cuda:12.9.1-base-ubuntu24.04"
    DEVICE       = "cuda"
    REQUIREMENTS = "tensorflow[and-cuda]==2.21.0"
  }
  tags = ["${REPOSITORY}:tensorflow2.21-cu129-py312"]
}
