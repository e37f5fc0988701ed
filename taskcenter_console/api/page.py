"""The page at ``/``: what runs here and where to go next. It asks nothing of any other server."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

import taskcenter

from .depends import CenterOf

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 38rem; margin: 12vh auto; padding: 0 1.25rem }
h1 { font-size: 1.75rem; margin: 0 } h1 small { font-size: 1rem; font-weight: 400; opacity: .7 }
h2 { font-size: 1rem; margin: 2rem 0 .5rem }
pre { padding: .9rem 1.1rem; border: 1px solid #8885; border-radius: .5rem; overflow-x: auto; line-height: 1.8 }
a { color: #2563eb } @media (prefers-color-scheme: dark) { a { color: #8ab4ff } }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@router.get("/", response_class=HTMLResponse)
def show_page(center: CenterOf) -> HTMLResponse:
    """Name, version, addresses and three commands."""
    prefect = center.prefect_url() or ""
    web = prefect.startswith(("http://", "https://"))
    runs = f'<li><a href="{escape(prefect)}">Prefect UI</a>: flow runs and workers</li>' if web else ""
    return HTMLResponse(
        f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Task Center</title>
<style>{_STYLE}</style>
<h1>Task Center <small>{escape(taskcenter.__version__)}</small></h1>
<p>Jobs on Prefect: planned before they run, explained while they run, remembered after.</p>
<ul>
{runs}
<li><a href="/api/openapi.json">/api/openapi.json</a>: the REST API, <a href="/api/health">/api/health</a></li>
</ul>
<h2>Three next commands</h2>
<pre>taskcenter task list
taskcenter plan nightly-sales
taskcenter run nightly-sales</pre>
</html>
""",
        headers={"Content-Security-Policy": _POLICY},
    )
