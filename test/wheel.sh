#!/bin/sh
# Usage: wheel.sh VENV FOLDER
# Build the source package and, from it, the wheel; check both; install the wheel into an
# environment of its own, which borrows nothing from VENV but other packages; run what it brings.
set -eu
venv=$(cd "$1" && pwd)
rm -rf "$2" && mkdir -p "$2"
folder=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")/.." && pwd)
unset PYTHONPATH

"$venv/bin/python" -m venv "$folder/tools"
"$folder/tools/bin/python" -m pip --disable-pip-version-check --quiet install build twine
# of a copy, so that no build folder is left in the checkout
git -C "$here" ls-files -z --cached --others --exclude-standard |
  (cd "$here" && xargs -0 ls -d 2>/dev/null | tar cf - -T -) | (mkdir "$folder/source" && tar xf - -C "$folder/source")
"$folder/tools/bin/python" -m build --outdir "$folder/dist" "$folder/source" >"$folder/build.log" 2>&1 || {
  tail -20 "$folder/build.log" >&2
  exit 1
}
"$folder/tools/bin/twine" check --strict "$folder"/dist/*

"$venv/bin/python" -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check --quiet install --no-deps "$folder"/dist/*.whl
cd "$folder"
python=$folder/env/bin/python

# Nothing but ours: doctor says what is missing, with status 1, and help works.
status=0
env/bin/ood doctor >bare.txt || status=$?
if [ "$status" != 1 ] || ! grep -q '^missing packages  *numpy is missing' bare.txt; then
  cat bare.txt
  exit 1
fi
env/bin/ood --help >/dev/null

# A path line brings the packages of VENV, but not what its own .pth files would (the checkout).
"$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
  >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
"$python" "$here/test/wheel_contents.py" "$here"
for name in inspect_bundle compile_bundle bench_bundle evaluate_bag ood_trainer ood; do
  "env/bin/$name" --help >/dev/null
  "env/lib/ood_perception/$name" --help >/dev/null # as `ros2 run` calls it
done
env/bin/ood inspect road_camvid | head -1
env/bin/ood inspect >/dev/null
env/bin/ood doctor --json >doctor.json || [ $? = 3 ]
env/bin/ood completion bash | bash -n
echo "wheel: $(basename "$folder"/dist/*.whl) is whole"
