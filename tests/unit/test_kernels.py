# SPDX-License-Identifier: BSD-2-Clause
"""D4: a kernel for the virtual machine is found in each form that Debian packs it in.

apt, dpkg and depmod are the real ones; the mirror is a folder with packages of a few hundred bytes, whose names, dependencies and
paths are those of Debian 12, of Debian 13 and of its next release.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
VM = TESTS / "vm"
MODULES = re.search(r"^modules=\(([^)]*)\)", (VM / "image.sh").read_text(), re.MULTILINE)[1].split()

BUILT_IN = "nft_objref"
PLAIN = 'const char info[] __attribute__((section(".modinfo"), used)) = "license=GPL";'
NEEDED = PLAIN + 'int needed; const char names[] __attribute__((section("__ksymtab_strings"), used)) = "needed";'
NEEDING = PLAIN + "extern int needed; int *what = &needed;"


class Form:
    """kernel.sh's name for it, the release that has it, its version, and what is where in which package."""

    def __init__(self, name, suite, version, kernel, modules, packages, depends=(), compressed=True):
        self.name, self.suite, self.version, self.kernel, self.modules = name, suite, version, kernel, modules
        self.packages, self.depends, self.compressed = packages, depends, compressed  # packages: those of the kernel and of the modules


FORMS = [
    Form("6.1", "bookworm", "6.1.0-9-cloud-amd64", "boot/vmlinuz-{}", "lib/modules/{}", ("image", "image"), compressed=False),
    Form("6.12", "trixie", "6.12.9+deb13-cloud-amd64", "boot/vmlinuz-{}", "usr/lib/modules/{}", ("image", "image")),
    Form("newest", "sid", "7.2.9+deb14-cloud-amd64", "usr/lib/modules/{}/vmlinuz", "usr/lib/modules/{}", ("binary", "modules"),
         ("base", "binary", "modules")),
]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)


def done(*command, **options):
    ended = run(*command, **options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Modules as depmod reads them: one that is needed, one that needs it, and one like all others."""
    folder = tmp_path_factory.mktemp("objects")
    for name, source in (("plain", PLAIN), ("needed", NEEDED), ("needing", NEEDING)):
        done("gcc", "-c", "-x", "c", "-o", folder / f"{name}.o", "-", input=source)
    return folder


class Mirror:
    """A repository in a folder, unsigned, and a copy of the scripts under test that knows no other."""

    def __init__(self, folder):
        self.folder, self.tree, self.lists = folder / "mirror", folder / "tree", {}
        (self.tree / "tests/vm").mkdir(parents=True)
        for name in ("apt.sh", "vm/kernel.sh", "vm/image.sh", "vm/init.sh"):
            shutil.copy(TESTS / name, self.tree / "tests" / name)
        own = done("bash", "-c", ". /etc/os-release && echo ${VERSION_CODENAME:-sid}").strip()
        state = folder / "state"
        (state / "lists/partial").mkdir(parents=True)
        (folder / "sources.list").write_text(f"deb file:{self.folder} {own} main\n")
        (folder / "apt.conf").write_text(
            f'Dir::Etc::SourceList "{folder}/sources.list";\nDir::Etc::SourceParts "/dev/null";\nDir::State "{state}";\n'
            'Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n')
        self.environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf")}

    def add(self, suite, name, depends, files):
        root = self.folder / "root"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n"
            + (f"Depends: {', '.join(depends)}\n" if depends else ""))
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        package = self.folder / f"{name}_1_amd64.deb"
        done("dpkg-deb", "--root-owner-group", "-Znone", "-b", root, package)
        control = (root / "DEBIAN/control").read_text()
        shutil.rmtree(root)
        index = self.folder / f"dists/{suite}/main/binary-amd64/Packages"
        index.parent.mkdir(parents=True, exist_ok=True)
        with open(index, "a", encoding="utf-8") as out:
            out.write(f"{control}Filename: {package.name}\nSize: {package.stat().st_size}\n"
                      f"SHA256: {hashlib.sha256(package.read_bytes()).hexdigest()}\n\n")

    def kernel(self, form, objects, left_out=()):
        version, contents = form.version, {"image": {}, "base": {}, "binary": {}, "modules": {}}
        contents[form.packages[0]][form.kernel.format(version)] = f"the kernel {version}".encode()
        modules, base = contents[form.packages[1]], form.modules.format(version)
        for name in [*MODULES, "needed", BUILT_IN]:
            if name in left_out or (name == BUILT_IN and form.name != "6.1"):
                continue
            object_file = objects / {"needed": "needed.o", "wireguard": "needing.o"}.get(name, "plain.o")
            path, content = f"{base}/kernel/{name}.ko", object_file.read_bytes()
            if form.compressed:
                path, content = path + ".xz", subprocess.run(["xz", "--check=crc32", "-c"], input=content, capture_output=True, check=True).stdout
            modules[path] = content
        modules[f"{base}/modules.order"] = modules[f"{base}/modules.builtin.modinfo"] = b""
        modules[f"{base}/modules.builtin"] = b"" if form.name == "6.1" else f"kernel/net/{BUILT_IN}.ko\n".encode()
        for kind in form.depends:
            self.add(form.suite, f"linux-{kind}-{version}", [], contents[kind])
        # What nobody has to fetch: the mirror does not have them.
        others = ["kmod", "linux-base (>= 4.3~)", "initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool"]
        self.add(form.suite, f"linux-image-{version}", [*others, *(f"linux-{kind}-{version} (= 1)" for kind in form.depends)],
                 contents["image"])
        self.add(form.suite, "linux-image-cloud-amd64", [f"linux-image-{version} (= 1)"], {})

    def run(self, script, *arguments):
        return run("bash", self.tree / "tests/vm" / script, *arguments, env=self.environment)


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_d4_kernel_and_modules_are_found(mirror, objects, tmp_path, form):
    mirror.kernel(form, objects)
    image, program = tmp_path / "image", tmp_path / "net/test_true"
    image.mkdir()
    program.parent.mkdir()
    shutil.copy("/bin/true", program)
    made = mirror.run("image.sh", image, form.name, program)
    assert made.returncode == 0, made.stderr
    assert (image / "vmlinuz").read_text() == f"the kernel {form.version}" and (image / "initramfs").stat().st_size > 0
    found = {path.name: path for path in (image / "root/lib/modules" / form.version).rglob("*.ko*")}
    wanted = {f"{name}.ko" for name in MODULES} | {"needed.ko"} | ({f"{BUILT_IN}.ko"} if form.name == "6.1" else set())
    assert set(found) == wanted, "what wireguard needs comes along"
    assert all(path.read_bytes()[:4] == b"\x7fELF" for path in found.values()), "busybox reads them plain"
    assert set((image / "root/etc/modules").read_text().split()) == {*MODULES, BUILT_IN}

    shutil.rmtree(mirror.folder)
    again = mirror.run("kernel.sh", form.name)
    assert again.returncode == 0 and again.stdout.strip().endswith(f"linux-image-{form.version}"), "what was fetched last serves"


def test_d4_a_module_that_is_missing_is_named(mirror, objects, tmp_path):
    mirror.kernel(FORMS[2], objects, left_out=["wireguard"])
    made = mirror.run("image.sh", tmp_path, "newest")
    assert made.returncode != 0 and "has no module wireguard" in made.stderr


def test_d4_a_kernel_that_no_release_has_is_told(mirror, objects):
    mirror.kernel(FORMS[0], objects)
    for name in ("6.12", "linux-image-none"):
        told = mirror.run("kernel.sh", name)
        assert told.returncode == 1 and f"no kernel {name}: " in told.stderr and told.stdout == ""
    assert mirror.run("kernel.sh", "6.1").returncode == 0
