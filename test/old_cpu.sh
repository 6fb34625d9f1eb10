#!/bin/sh
# Usage: old_cpu.sh VENV FOLDER [CPU]
# Make FOLDER a virtual environment with the packages of VENV whose python runs on an emulated CPU,
# and so do all processes that it starts (the ROS wheels start python a second time by itself).
# CPU: qemu's; default: AVX2 without AVX-512, VNNI and bf16.
set -eu
venv=$(cd "$1" && pwd)
cpu=${3:-Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid}
command -v qemu-x86_64 >/dev/null || {
  echo "qemu-x86_64 not found: install it (Debian/Ubuntu: apt install qemu-user)" >&2
  exit 1
}
mkdir -p "$2/bin"
folder=$(cd "$2" && pwd)
cp "$venv/pyvenv.cfg" "$folder"
ln -sfn "$venv/lib" "$folder/lib"
cat > "$folder/bin/python" <<END
#!/bin/sh
exec qemu-x86_64 -cpu $cpu -0 "$folder/bin/python" "$(readlink -f "$venv/bin/python")" "\$@"
END
chmod +x "$folder/bin/python"
