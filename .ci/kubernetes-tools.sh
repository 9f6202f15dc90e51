# To be sourced from the root of the repository: brings KUSTOMIZE, a command, and CRDS, the files that define the custom
# resources of docker/kubernetes, with colons between them.

# shellcheck source=.ci/shared.sh
source .ci/shared.sh
bring_go
tools="$PWD/target/ci-tools"

# The last release that Go 1.26 builds.
kustomize=v5.7.1
if [[ "$("$tools/bin/kustomize" version 2>/dev/null)" != "$kustomize" ]]; then
    GOBIN="$tools/bin" go install "sigs.k8s.io/kustomize/kustomize/v5@$kustomize"
fi
export KUSTOMIZE="$tools/bin/kustomize"

# module PATH VERSION SUM: the folder of a Go module, whose content is what it was.
module() {
    local told
    told="$(cd / && go mod download -json "$1@$2")"
    if [[ "$(member Sum "$told")" != "$3" ]]; then
        echo "$1@$2 is not what it was: $(member Sum "$told") and not $3" >&2
        return 1
    fi
    member Dir "$told"
}
member() {
    python3 -c 'import json, sys; print(json.loads(sys.argv[2])[sys.argv[1]])' "$1" "$2"
}
keda="$(module github.com/kedacore/keda/v2 v2.21.0 h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=)"
operator="$(module github.com/prometheus-operator/prometheus-operator v0.85.0 \
    h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=)"
export CRDS="$keda/config/crd/bases/keda.sh_scaledobjects.yaml"
for kind in podmonitors prometheusrules; do
    CRDS+=":$operator/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml"
done
