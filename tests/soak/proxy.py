# SPDX-License-Identifier: BSD-2-Clause
"""A proxy between agents and the API that ends their TLS and does what the worst network could do to them.

It answers in the API's name with the API's own certificate. In its calm mood it passes everything on. In the hostile one a
request may be lost before or behind the API (after the commit), delayed, cut in the middle, sent twice, at once or much later
behind newer ones, and an answer may be that to an earlier request.
"""

import collections
import http.client
import http.server
import random
import ssl
import threading
import time

HELD = 8  # requests and answers remembered, to be repeated out of order


class Proxy:
    MOODS = ("lose the request", "lose the answer", "cut the request", "cut the answer", "delay", "twice at once", "again later",
             "an old request first", "an old answer")

    def __init__(self, address, port, upstream, identity, seed):
        self.upstream = upstream
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.hostility = 0.0  # how likely a report is treated badly
        self.done = collections.Counter()
        self.passed = 0
        self.requests = collections.deque(maxlen=HELD)
        self.answers = collections.defaultdict(lambda: collections.deque(maxlen=HELD))  # of each agent
        self.later = []  # timers
        self.trust = ssl.create_default_context(cafile=str(identity.parent / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity)
        self.server = self._server((address, port), context)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _server(self, address, context):
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 20

            def log_message(self, *_):
                pass

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items()
                           if name.lower() not in ("host", "connection", "content-length")}
                answer = proxy.serve((self.command, self.path, body, headers))
                if answer is None:
                    self.close_connection = True
                    return
                status, sent_headers, data, cut = answer
                self.send_response(status)
                for name, value in sent_headers:
                    if name.lower() in ("content-type", "retry-after"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:len(data) // 2] if cut else data)
                self.close_connection = cut or self.close_connection

            do_GET = do_POST = handle_any

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64

            def get_request(self):
                connection, address = super().get_request()
                return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, *_):
                pass  # an agent that is killed leaves broken connections

        return Server(address, Handler)

    def close(self):
        for timer in self.later:
            timer.cancel()
        self.server.shutdown()
        self.server.server_close()

    def forward(self, request, cut=False):
        """(status, headers, data, False) of the API, or None when it gave no answer."""
        method, path, body, headers = request
        connection = http.client.HTTPSConnection(*self.upstream, context=self.trust, timeout=70)
        try:
            if cut:
                connection.putrequest(method, path)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.putheader("Content-Length", str(len(body)))
                connection.endheaders()
                connection.send(body[:len(body) // 2])
                return None
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read(), False
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def serve(self, request):
        if not request[1].startswith("/v1/agent/report"):
            return self.forward(request)
        with self.lock:
            mood = self.random.choice(self.MOODS) if self.random.random() < self.hostility else None
            pause = self.random.uniform(0.1, 2.5)
            old_request = self.random.choice(self.requests) if self.requests else None
            answers = self.answers[request[3].get("Authorization")]
            old_answer = self.random.choice(answers) if answers else None
            self.requests.append(request)
            self.passed += 1
            if mood:
                self.done[mood] += 1
        answer = self.mistreat(request, mood, pause, old_request, old_answer)
        if answer and answer[0] == 200 and mood != "an old answer":
            with self.lock:
                answers.append(answer)
        return answer

    def mistreat(self, request, mood, pause, old_request, old_answer):
        if mood == "lose the request":
            return None
        if mood == "cut the request":
            return self.forward(request, cut=True)
        if mood == "delay":
            time.sleep(pause)
        if mood == "an old request first" and old_request:
            self.forward(old_request)
        if mood == "again later":
            self.again(request, pause)
        if mood == "twice at once":
            self.again(request, 0)
        answer = self.forward(request)
        if mood == "lose the answer":
            return None
        if mood == "cut the answer" and answer:
            return (*answer[:3], True)
        if mood == "an old answer" and old_answer:
            return old_answer
        return answer

    def again(self, request, pause):
        timer = threading.Timer(pause, self.forward, [request])
        timer.daemon = True
        timer.start()
        with self.lock:
            self.later = [other for other in self.later if other.is_alive()] + [timer]
