# For scripts that build and run images without a Docker engine: buildah, and podman with runc. To be sourced
# from the root of the repository. They need root, or sudo for the packages.
# shellcheck shell=bash

# shellcheck source=.ci/shared.sh
source .ci/shared.sh

containers="$PWD/target/containers"
# What works in a container of its own, too, where neither overlay mounts nor cgroups' newer half are to be had.
storage=(--root "$containers/storage" --runroot "$containers/run" --storage-driver vfs)
mkdir -p "$containers"
# Whose DNS knows the names of containers; the older one would be taken where its configuration lies about.
printf '[network]\nnetwork_backend = "netavark"\n' >"$containers/containers.conf"
export CONTAINERS_CONF="$containers/containers.conf"
buildah=(buildah "${storage[@]}")
podman=(podman "${storage[@]}" --runtime runc --cgroup-manager cgroupfs)

# use_overlay: where the kernel mounts overlays. vfs copies an image for each of its layers and its containers, which
# with gigabytes takes longer than anybody waits.
use_overlay() {
    local probe="$containers/probe"
    mkdir -p "$probe"/{lower,upper,work,merged}
    mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" || return 0
    umount "$probe/merged"
    storage=(--root "$containers/overlay" --runroot "$containers/overlay-run" --storage-driver overlay)
    buildah=(buildah "${storage[@]}")
    podman=(podman "${storage[@]}" --runtime runc --cgroup-manager cgroupfs)
}

# A smaller limit than the machine's own is always allowed.
podman_run="--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"

# must_fail WHAT COMMAND...: the proof that a check can fail.
must_fail() {
    local what="$1"
    shift
    if "$@" >/dev/null 2>&1; then
        echo "a check that must fail on $what passes: $*"
        return 1
    fi
    echo "fails on $what, as it must"
}

# build_image NAME CONTEXT OPTION...: from docker/Dockerfile. The OCI format knows no health check.
build_image() {
    local name="$1" context="$2"
    shift 2
    "${buildah[@]}" bud --quiet --isolation chroot --format docker --file docker/Dockerfile \
        --build-arg VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" \
        --build-arg REVISION="$(git rev-parse HEAD)" --tag "$name" "$@" "$context"
}

# package_image NAME: a static binary of the dev profile, linked from what is built already, as an image.
package_image() {
    local context="$containers/context"
    cargo rustc --locked --bin pawl -- -C target-feature=+crt-static -C strip=symbols
    rm -rf "$context"
    install -D "${CARGO_TARGET_DIR:-target}/debug/pawl" "$context/image/pawl"
    if readelf --program-headers "$context/image/pawl" | grep INTERP; then
        echo 'the binary is not static'
        return 1
    fi
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$context/image/etc/ssl/certs/ca-certificates.crt"
    mkdir -p "$context/state/pawl"
    build_image "$1" "$context" --build-arg BINARY_FROM=prebuilt
}

# within_size NAME MEGABYTES: prints how large the image is, unpacked and as it is pulled, and fails above the bound.
within_size() {
    local name="$1" bound="$2" size packed
    size="$("${podman[@]}" image inspect --format '{{.Size}}' "$name")"
    packed="$("${podman[@]}" save "$name" | gzip | wc --bytes)"
    printf 'size of %s: %d.%02d MB, compressed %d.%02d MB; the bound is %d MB\n' "$name" \
        $((size / 1000000)) $((size / 10000 % 100)) $((packed / 1000000)) $((packed / 10000 % 100)) "$bound"
    if ((size > bound * 1000000)); then
        echo "the image is too large: what has been added to Cargo.toml, and does it need all its features?"
        return 1
    fi
}

# run_image NAME: the sample orders through the image, against a real broker, without rights on a read-only root.
run_image() {
    PAWL_TEST_IMAGE="$1" PAWL_TEST_ENGINE="${podman[*]}" \
        PAWL_TEST_ENGINE_RUN="--read-only-tmpfs=false $podman_run" CI=true \
        one_test image::the_image_runs_without_rights_on_a_read_only_root_and_processes_the_orders
}
