"""Send chats that share a system prompt to several routers, each conversation to one of them.

python traffic.py http://127.0.0.1:30001 http://127.0.0.1:30002
"""

import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

CONVERSATIONS = 16
TURNS = 6
SYSTEM = "You answer in one sentence. " * 100


def converse(router: str, user: str) -> None:
    """Hold one conversation: each turn sends all that was said so far."""
    messages = [{"role": "system", "content": SYSTEM}]
    for turn in range(TURNS):
        messages.append({"role": "user", "content": f"{user} asks question {turn}. " * 20})
        body = {"model": "simulated-model", "user": user, "messages": messages}
        request = urllib.request.Request(
            f"{router}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            messages.append(json.load(response)["choices"][0]["message"])


def main(routers: list[str]) -> None:
    """Give the conversations to the routers in turn: a whole conversation stays with one."""
    with ThreadPoolExecutor(CONVERSATIONS) as pool:
        chats = [
            pool.submit(converse, routers[number % len(routers)], f"user-{number}") for number in range(CONVERSATIONS)
        ]
    for chat in chats:
        chat.result()


if __name__ == "__main__":
    main(sys.argv[1:])
