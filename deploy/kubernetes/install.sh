#!/bin/sh
# Installs the pipeline into a new environment, as in the image. From the repository's root:
#   sh deploy/kubernetes/install.sh FOLDER cuda|cpu
set -eu

folder=$1
accelerator=$2

python3 -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check --no-cache-dir "$@"; }

# The tested versions. `cpu` selects PyTorch's build without CUDA, which saves two gigabytes of libraries.
constraints=$(mktemp)
torch=$(sed -n 's/^torch==//p' constraints.txt)
case $accelerator in
    cpu) sed "s/^torch==.*/torch==$torch+cpu/; s/^\(torchvision==.*\)/\1+cpu/" constraints.txt >"$constraints" ;;
    cuda) cp constraints.txt "$constraints" ;;
    *) echo "the accelerator is '$accelerator', expected cuda or cpu" >&2 && exit 2 ;;
esac

# Wheels only: a package that would have to be compiled stops the build.
pip install --quiet --only-binary :all: --constraint "$constraints" "setuptools>=77" wheel
pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$folder/share" .
pip install --quiet --only-binary :all: --constraint "$constraints" "$(echo "$folder"/share/clay_assets-*.whl)[kubernetes]"
rm -f "$folder"/share/clay_assets-*.whl "$constraints"
"$folder/bin/python" -m pip check
"$folder/bin/python" -c "import torch; print('torch', torch.__version__, 'for CUDA', torch.version.cuda)"
