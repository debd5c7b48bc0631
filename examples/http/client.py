"""A client of the HTTP server, which it starts."""

import contextlib
import http.client
import json
import re
import subprocess

TARGET = "session_group://4?policy=round_robin&execution=caller"


class Client:
    """A connection that is kept alive."""

    def __init__(self, port: int):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        self.connection.request(method, path, body)
        response = self.connection.getresponse()
        return response.status, response.read().decode()

    def count(self, words: list[str]) -> None:
        """Asks for the words of a text and checks the answer."""
        body = json.dumps({"inputs": {"text": [" ".join(words)]}})
        status, answer = self.send("POST", "/predict", body)
        assert status == 200, answer
        different = list(dict.fromkeys(words))
        assert json.loads(answer)["outputs"] == {
            "words": [f"<{word}>" for word in different],
            "count": [words.count(word) for word in different],
        }, answer


@contextlib.contextmanager
def serving(program: str, model: str, *arguments: str):
    """The server's process, and a port with a group of four sessions behind it."""
    command = [program, "--model", model, "--target", TARGET, "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, int(process.stdout.readline().rsplit(":", 1)[1])
        finally:
            process.kill()


def runs(port: int) -> list[int]:
    """How many requests each session has run; loading takes some, too."""
    metrics = Client(port).send("GET", "/metrics")[1]
    pattern = r"^session_group_request_duration_seconds_count.* (\d+)$"
    return [int(count) for count in re.findall(pattern, metrics, re.MULTILINE)]
