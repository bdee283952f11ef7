#!/usr/bin/env bash
# swagger-ui-dist 5.34.0 in Chromium: a page whose own files have no inline code still violates `style-src 'self'`, because
# the logo of StandaloneLayout, the layout of its example page, is an SVG with a <style> element. With BaseLayout there is
# no violation. The page works either way; the logo is black instead of white and green.
#
# Output seen:
#   swagger-ui-dist 5.34.0, Chromium …
#   StandaloneLayout: style-src-elem
#   BaseLayout: none
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
npm pack --silent swagger-ui-dist@5.34.0 >/dev/null
tar -xzf swagger-ui-dist-*.tgz
for layout in StandaloneLayout BaseLayout; do
  cat >"package/$layout.html" <<HTML
<!doctype html>
<meta charset="utf-8">
<link rel="stylesheet" href="swagger-ui.css">
<body id="none"><div id="ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="swagger-ui-standalone-preset.js"></script>
<script src="$layout.js"></script>
HTML
  cat >"package/$layout.js" <<JAVASCRIPT
addEventListener("securitypolicyviolation", (event) => { document.body.id = event.violatedDirective; });
SwaggerUIBundle({
  dom_id: "#ui", layout: "$layout", presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  spec: {openapi: "3.1.0", info: {title: "An API", version: "1"}, paths: {}},
});
JAVASCRIPT
done
cat >serve.py <<'PYTHON'
import http.server, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:")
        super().end_headers()

    def log_message(self, *ignored):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
(cd package && exec python3 ../serve.py) >port &
until test -s port; do sleep 0.1; done
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
echo "swagger-ui-dist $(node -p 'require("./package/package.json").version'), $("$browser" --version 2>/dev/null)"
violated() { # layout
  "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$folder/profile" --virtual-time-budget=20000 \
    --dump-dom "http://127.0.0.1:$(cat port)/$1.html" 2>/dev/null >"$1.dom"
  grep -q 'An API' "$1.dom" || { echo "the page was not shown" >&2; exit 1; }
  grep -o '<body id="[^"]*"' "$1.dom" | cut -d '"' -f 2
}
standalone=$(violated StandaloneLayout)
base=$(violated BaseLayout)
echo "StandaloneLayout: $standalone"
echo "BaseLayout: $base"
[[ $standalone = style-src-elem && $base = none ]] || { echo "the behaviour has changed" >&2; exit 1; }
