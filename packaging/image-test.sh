#!/bin/bash
# Runs the image in the archive ARCHIVE as a container without network, rights or a file system to write to, as
# TensorFlow Serving's users and as KServe start theirs, and asks it. As root.
#
#     image-test.sh ARCHIVE MODELS
set -euo pipefail
cd "$(dirname "$0")/.."
archive=$1 models=$PWD/$2
name=session-group-test-$$
image=$(podman load --quiet --input "$archive" | sed 's/^Loaded image: *//')
trap 'podman rm --force --ignore $name >/dev/null' EXIT

# podman asks for more than what a limited root may give.
limits=(--network=none --ulimit nofile=4096:4096 --ulimit nproc=2048:2048)
if ! why=$(podman --runtime runc run --rm "${limits[@]}" "$image" --version 2>&1); then
    echo "No container can be started here, so the image is not tried: $why"
    exit 0
fi

fail() {
    echo "error: $*" >&2
    podman logs $name 2>&1 | tail -30 >&2
    exit 1
}
# begin OPTION... IMAGE ARGUMENT...
begin() {
    podman rm --force --ignore $name >/dev/null
    podman --runtime runc run --detach --name $name "${limits[@]}" --read-only --cap-drop=all \
        --security-opt=no-new-privileges \
        --volume "$models/half_plus:/models/half/1:ro" "$@" >/dev/null
    pid=$(podman inspect --format '{{.State.Pid}}' $name)
}
is_running() {
    [ "$(podman inspect --format '{{.State.Running}}' $name)" = true ]
}
# answers PORT: whether y = x / 2 + 2 is 2.5 for 1, once the port is open.
answers() {
    until nsenter --target "$pid" --net curl --silent --output /dev/null "localhost:$1/v1/models/half"; do
        is_running || fail "the container has ended"
        sleep 0.5
    done
    nsenter --target "$pid" --net curl --silent --fail --data '{"instances": [1]}' \
        "localhost:$1/v1/models/half:predict" | tr -d ' \n' | grep '"predictions":\[2.5\]' >/dev/null
}
ends_well() {
    podman stop --time 60 $name >/dev/null
    local code
    code=$(podman inspect --format '{{.State.ExitCode}}' $name)
    [ "$code" -eq 0 ] || fail "SIGTERM ends the container with $code"
}

begin --env MODEL_NAME=half "$image" --session_num_per_group=2 --access_log
answers 8501 || fail "no answer with MODEL_NAME"
[ "$(stat --format=%u "/proc/$pid")" -eq 1000 ] || fail "the server is not the user 1000"
[[ "$(readlink "/proc/$pid/exe")" = */session_group_model_server ]] || fail "the first process is not the server"
podman logs $name 2>&1 | grep access >/dev/null || fail "arguments do not reach the server"
ends_well

begin --volume "$models/half_plus:/elsewhere/half/1:ro" --env MODEL_NAME=half --env MODEL_BASE_PATH=/elsewhere "$image"
answers 8501 || fail "no answer with MODEL_BASE_PATH"
ends_well

config=$(mktemp)
chmod 644 "$config"
echo "model_config_list { config { name: 'half' base_path: '/models/half' model_platform: 'tensorflow' } }" >"$config"
begin --volume "$config:/models.config:ro" "$image" --model_config_file=/models.config
answers 8501 || fail "no answer with --model_config_file"
ends_well
rm "$config"

# A model that never comes: the server waits, and ends when it is told to.
begin "$image"
sleep 2
is_running || fail "the server does not wait for its model"
ends_well

# As KServe starts it.
begin --entrypoint /usr/bin/tensorflow_model_server "$image" --model_name=half --port=9000 --rest_api_port=8080 \
    --model_base_path=/models/half --rest_api_timeout_in_ms=60000
answers 8080 || fail "no answer to KServe's arguments"
ends_well
podman rmi --force "$image" >/dev/null
echo "the image serves"
