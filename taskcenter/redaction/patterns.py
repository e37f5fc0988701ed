"""The words and shapes that redaction looks for. (spec 6.6, rules 2 and 3)

Every pattern here runs in linear time: a repeat is either bounded or possessive, none stands inside another, and
nothing that can fail follows an unbounded one. Alternatives start with a plain letter, so that the regex engine can
skip ahead on it; name patterns are written for lower-cased text for the same reason.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

__all__ = [
    "ANSI",
    "ASSIGNMENT",
    "BASE64_LINE",
    "BEGINNINGS",
    "BODIES",
    "COMPARISON",
    "CURL_USER",
    "HARMLESS_ENDINGS",
    "HARMLESS_STARTS",
    "HARMLESS_VALUE",
    "IDENTIFIED_BY",
    "KEY_NAME",
    "KEY_WORDS",
    "LONG",
    "LONG_BASE64",
    "LOOSE_SHAPES",
    "LOOSE_START",
    "MASK",
    "PRIVATE_KEY",
    "SCHEME",
    "SHAPES",
    "TEMPLATES",
    "UNCERTAIN",
    "URL_LOGIN",
    "VENDOR",
    "VENDOR_NAMES",
]

MASK = "[REDACTED]"

KEY_WORDS = (
    *("pas", "pw", "psw", "pss", "secret", "token", "cred", "auth", "cookie", "key", "salt", "api", "login"),
    *("bundle_", "nstring", "n_string", "n-string", "n string", "n.string"),
)
"""No name below can occur in a text without one of these; looking for them is all that an ordinary line costs."""

_NAME = (
    r"p(?:[as]{0,3}wo?r?s?d|ass[-_ .]?(?:phrase|code)|rivate[-_ .]?key|ass(?![a-z])|w(?![a-z]))"
    r"|s(?:ecret|igning[-_ .]?key|alt\d?(?![a-z]))"
    r"|t(?:oken)"
    r"|c(?:redential|ookie|onnection[-_ .]?string)"
    r"|a(?:uthorization|pi[-_ .]?key|ccess[-_ .]?key|ccount[-_ .]?key|uth(?![a-z])|pi(?![a-z]))"
    r"|m(?:aster[-_ .]?key)"
    r"|e(?:ncryption[-_ .]?key)"
    r"|o(?:auth2?[-_ .]?bearer)"
    r"|k(?:ey)"
    r"|l(?:ogin(?![a-z]))"
    r"|b(?:undle_[a-z0-9_]{1,60}?__(?:com|org|net|io|dev)(?![a-z0-9_]))"
)
"""``bundle_gems__example__com`` is how Ruby's bundler keeps the login of a gem server in the environment.
``p[as]{0,3}wo?r?s?d`` is password, passwd, pwd and how people misspell them: pswd, pasword, passworsd."""

UNCERTAIN = frozenset({"pass", "pw", "auth", "key", "api", "login", *("salt" + n for n in ("", *"0123456789"))})
"""Names that are often harmless: their value is masked only when it looks like a secret itself."""

KEY_NAME = re.compile(rf"({_NAME})")
"""A secret's name inside a longer name, for object keys (already lower-cased)."""

ASSIGNMENT = re.compile(
    rf"({_NAME})"  # no atomic group: the engine would not see which letters it can begin with
    r"([a-z0-9_.\-]{0,32}+)"  # 2, the rest of the name: token_value, secret.key
    r"((?:[\"'`\[\])\\]|&quot;|%22){0,8}+)"  # 3, what closes it
    r"(?=[ \t:=,(>!?%])"  # most names in prose end here
    r"(?: (?:for|of) [\w@.'\"\-]{1,40}+)?"
    r"(?:"
    r"([ \t]{0,8}+(?:%3d|:{1,3}=?|={1,3}>?|!={1,2}|\?=|value {0,2}= {0,2})[ \t]{0,8}+(?:str {0,2}= {0,2})?)"
    r"|([ \t]{0,4}+[,(][ \t]{0,4}+(?=[\"'`\\]))"
    r"|(>)"
    r"|([ \t]{1,4}+(?:(?:is|was|as) )?)"
    r")"
)
"""A name, its rest, its closing quotes, and one of four kinds of separator: 4 an assignment or comparison,
5 a comma or bracket before a quoted value, 6 the end of an XML tag, 7 only blanks."""

HARMLESS_STARTS = (
    *("max_", "max", "min_", "num_", "num", "n_", "total_", "total", "prompt_", "completion_", "input_", "output_"),
    *("has_", "is_", "no_", "use_", "show_", "hide_", "forgot_", "reset_", "require_", "requires_", "public_"),
    *("max-", "min-", "num-", "total-", "has-", "is-", "no-", "reset-", "forgot-", "public-", "public", "cached_"),
)
"""``max_tokens``, ``has_password``, ``public_key``: the name counts or describes, it does not hold."""

HARMLESS_ENDINGS = (
    *("count", "counts", "name", "names", "id", "ids", "file", "files", "path", "paths", "dir", "url", "urls", "uri"),
    *("type", "types", "length", "len", "size", "limit", "limits", "policy", "ttl", "expiry", "expires", "expires_in"),
    *("expiration", "expired", "age", "field", "fields", "regex", "pattern", "version", "ref", "arn", "status"),
    *("enabled", "required", "usage", "used", "index", "header", "label", "hint", "strength", "min", "max", "_at"),
    *("provider", "manager", "store", "storage", "endpoint", "alias", "location", "group", "kind", "class"),
    *("timeout", "lifetime", "algorithm", "encoding", "position", "chars", "selector", "distance", "column", "table"),
    *("rotation", "method", "mode", "format", "scope", "scopes", "prompt", "placeholder", "generator", "validator"),
    *("board", "word", "words", "space", "chain", "pair", "tab", "frame", "error", "info", "issuer", "audience"),
)
"""``token_count``, ``secret_name``, ``password_file``: what follows the word says that it is something about it."""

HARMLESS_VALUE = re.compile(
    r"(?:true|false|null|none|nil|undefined|yes|no|on|off|nan|n/a|unset|empty|required|optional|invalid|expired"
    r"|missing|incorrect|wrong|must|not|expected|found|is|was|and|or|for|from|the|has|used|unknown"
    r"|\$\{[^}]*\}|\$\{\{[^}]*\}\}|\$\([^)]*\)|\$[a-z_][\w.:]*|\{\{[^}]*\}\}|\{[\w.]*\}|%[a-z_]\w*%"
    r"|%\(?\w*\)?[sdr]|<[^<>]*>|\[redacted\]|\(\)|:[a-z_]\w*|[\W_]{1,3}"
    r"|(?:your|my|the|enter|insert|add|put)[-_ ][a-z_ -]*(?:here|password|token|secret|key)"
    r"|(?:self|this|config|settings|os|process|env|args|cfg|options|opts|request|req|secrets|var|vars|local|module"
    r"|data|params|ctx|context|props|steps|github|inputs)(?:\.|->|\[|::)[\w.\[\]'\"()>-]*"
    r"|[a-z_][\w.]*\([^)]*\)?"
    r"|(?:https?|file)://[^\s@]*)",
    re.IGNORECASE,
)
"""Values that hold nothing: truth values, placeholders, references to a variable, words of a sentence, addresses."""

SCHEME = re.compile(
    r"(?:bearer|basic|token|ntlm|negotiate|digest|apikey|aws4-hmac-sha256|flyv1|splunk|sso-key)[ \t]+", re.IGNORECASE
)
"""The word before the secret in an Authorization header; it stays readable."""

COMPARISON = re.compile(
    r"[\"'`]([^\"'`\n]{4,200})[\"'`] {0,2}[!=]={1,2} {0,2}[a-z_.]{0,20}"
    r"(?:passw|passwd|pwd|secret|token|api_?key|private_?key|access_?key|credential)",
    re.IGNORECASE,
)
"""``"value" == password``: the secret stands before its name."""

IDENTIFIED_BY = re.compile(
    r"identified {1,4}(?:with {1,4}[\w'\"`]{1,60} {1,4})?(?:by|as) {1,4}(?:password {1,4})?[\"'`]?([^\s\"'`;)]{1,200})",
    re.IGNORECASE,
)
"""SQL that sets a password."""

CURL_USER = re.compile(
    r"(?:[ \t]-u ?|--user[ =]|--proxy-user[ =]|USERPWD, ?)\\?[\"']?([^\s:\"'\\]{1,100}):"
    r"(?:\\?[\"'](?=\S))?([^\s\"'\\]{0,200})"
)
"""``curl -u name:password``; only looked at in text that speaks of curl."""

URL_LOGIN = re.compile(r"://([^\s/?#:@\"'`<>\\]{0,256}+)(?::([^\s/\"'`<>\\]{1,512}))?@(?=[\w\[$%{])")
"""``scheme://user:password@host``, and ``scheme://token@host``."""

PRIVATE_KEY = re.compile(
    r"-----(?:BEGIN|END) [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"|---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----|PuTTY-User-Key-File-\d"
)

BASE64_LINE = re.compile(
    r"(?<![A-Za-z0-9+/=_.\-])[A-Za-z0-9+/]{59,76}+={0,2}(?![A-Za-z0-9+/=_.\-])(?=[\s\\nr\"',+*]{0,8}/?$)", re.MULTILINE
)
"""A line that ends in one run of 59 to 76 base64 signs: the body of a PEM file that arrives line by line."""

LONG = 512
"""Signs of base64 in one run that are masked whatever they hold."""

_W = r"[A-Za-z0-9_\-]"
_ENDS = r"(?![A-Za-z0-9])"
BODIES = (
    # JSON Web Token (the caller leaves one without a dot alone), Grafana key, base64 of keys
    rf"eyJ{_W}{{6,}}+(?:\.{_W}*+){{0,4}}+=*+",
    r"WwogICA[A-Za-z0-9+/=]{30,}+",
    r"LS0tLS1CRUdJTiB[A-Za-z0-9+/=]{10,}+",
    r"MII[A-Za-z0-9+/]{40,}+=*+",
    # clouds
    rf"AKIA[A-Z0-9]{{16,17}}{_ENDS}",
    rf"ASIA[A-Z0-9]{{16}}{_ENDS}",
    rf"ABIA[A-Z0-9]{{16}}{_ENDS}",
    rf"ACCA[A-Z0-9]{{16}}{_ENDS}",
    rf"A3T[A-Z0-9]{{17}}{_ENDS}",
    r"ABSK[A-Za-z0-9+/]{40,}+=*+",
    rf"bedrock-api-key-{_W}{{20,}}+",
    r"amzn\.mws\.[0-9a-f-]{36}",
    r"AIza[A-Za-z0-9_\-]{33,36}(?![A-Za-z0-9_-])",
    rf"ya29\.{_W}{{20,}}+",
    rf"GOCSPX-{_W}{{20,}}+",
    rf"LTAI[A-Za-z0-9]{{12,24}}{_ENDS}",
    rf"AKID[A-Za-z0-9]{{32,40}}{_ENDS}",
    r"do[opr]_v1_[a-f0-9]{40,}+",
    r"dapi[0-9a-h]{32}(?:-\d)?",
    rf"HRKU-{_W}{{30,}}+",
    rf"sha256~{_W}{{20,}}+",
    rf"fo1_{_W}{{40,}}+",
    r"fm(?:1[ar]|2)_[A-Za-z0-9+/=]{60,}+",
    r"pul-[a-f0-9]{40}(?![a-f0-9])",
    r"AGE-SECRET-KEY-1[A-Z0-9]{50,}+",
    rf"cfut_{_W}{{30,}}+",
    rf"vc[pkiac]_{_W}{{24,}}+",
    r"pscale_(?:pw|tkn|oauth)_[A-Za-z0-9_.=\-]{30,}+",
    r"sbp_(?:v0_|oauth_)?[a-f0-9]{40}",
    rf"sb_secret_{_W}{{20,}}+",
    # code hosts and package indexes
    r"gh[pousr]_[A-Za-z0-9_]{36,}+",
    r"github_pat_[A-Za-z0-9_]{22,}+",
    r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct|wt|oas)-[A-Za-z0-9_.=\-]{18,}+",
    rf"GR1348941{_W}{{20,}}+",
    r"ATATT3[A-Za-z0-9_\-=%\\/+.]{40,}+",
    r"ATCTT3[A-Za-z0-9_\-=%\\/+.]{40,}+",
    r"ATBB[A-Za-z0-9_=.\-]{24,}+",
    r"BBDC-[A-Za-z0-9+/@_\-]{40,}+",
    r"npm_[A-Za-z0-9]{36,}+",
    rf"pypi-{_W}{{50,}}+",
    r"rubygems_[a-f0-9]{48}",
    r"CLOJARS_[A-Za-z0-9]{60}",
    r"oy2[a-z0-9]{43}(?![a-z0-9])",
    rf"dckr_(?:pat|oat)_{_W}{{20,}}+",
    r"SWM(?:TKN|KEY)-1-[A-Za-z0-9\-]{40,}+",
    r"cmVmd[A-Za-z0-9=]{55,}+",
    r"AKC[a-zA-Z0-9]{60,}+",
    r"sgp_(?:[a-fA-F0-9]{16}_|local_)?[a-fA-F0-9]{40}",
    r"sq[uap]_[A-Za-z0-9]{40}",
    r"sntry[su]_[A-Za-z0-9+/=_\-]{40,}+",
    # chat and mail
    r"xox[abceoprs](?:\.xox[abceoprs])?-[A-Za-z0-9%_\-]{7,}+",
    r"xapp-\d-[A-Za-z0-9%\-]{6,}+",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{30,}+",
    rf"SG\.{_W}{{16,32}}+\.{_W}{{16,64}}+",
    r"key-[a-f0-9]{32}(?![a-f0-9])",
    r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}",
    *(rf"{first}[A-Za-z0-9]{{23,25}}\.{_W}{{6}}\.{_W}{{27,38}}+" for first in "MNO"),
    rf"SK(?:[0-9a-f]{{32}}|[0-9A-F]{{32}}){_ENDS}",
    # money and shops
    *(rf"{first}k_(?:live|test|prod)_[A-Za-z0-9]{{16,}}+" for first in "srp"),
    r"whsec_[A-Za-z0-9+/=]{24,}+",
    rf"sq0[a-z]{{3}}-{_W}{{22,}}+",
    rf"EAAA{_W}{{56,}}+",
    r"EAA[A-Z][A-Za-z0-9]{20,}+",
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    r"EZ[AT]K[A-Za-z0-9]{54}",
    # language models
    r"sk-(?:ant-|proj-|svcacct-|admin-|or-v1-|lf-)?[A-Za-z0-9_\-]{20,}+",
    rf"hf_[A-Za-z]{{34}}{_ENDS}",
    r"api_org_[A-Za-z]{34}",
    r"gsk_[A-Za-z0-9]{48,}+",
    r"llx-[A-Za-z0-9]{40,}+",
    rf"tgp_v1_{_W}{{40,}}+",
    r"xai-[A-Za-z0-9_]{60,}+",
    r"pplx-[A-Za-z0-9]{40,}+",
    r"r8_[A-Za-z0-9]{37}",
    # watchers, analysts and the rest
    r"glc_[A-Za-z0-9+/=$]{32,}+",
    r"glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}",
    r"hv[sbr]\.[A-Za-z0-9_.\-]{20,}+",
    r"NRA[KLA]-[A-Za-z0-9_\-]{26,}+",
    r"NRI[IQKRA]-[A-Za-z0-9_\-]{24,}+",
    r"ntn_[A-Za-z0-9]{40,}+",
    rf"ops_eyJ{_W}{{60,}}+=*+",
    r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}",
    rf"API-[A-Z0-9]{{26}}{_ENDS}",
    r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",
    r"pn[ub]_[A-Za-z0-9]{36}",
    rf"figd_{_W}{{36,}}+",
    r"ph[sxacr]_[A-Za-z0-9]{40,}+",
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.\-]{40,}+",
    r"lin_api_[A-Za-z0-9]{40}",
    r"ico-[A-Za-z0-9]{32}(?![A-Za-z0-9.])",
    rf"tk-us-{_W}{{48}}",
    r"IGQV[A-Za-z0-9_\-]{60,}+",
    r"cosmo_[a-f0-9]{32}",
    rf"da2-[a-z0-9]{{26}}{_ENDS}",
    rf"sl\.(?:u\.)?{_W}{{100,}}+",
    r"AAAAAAAAAAAAAAAA[A-Za-z0-9%]{60,}+",
    r"00D[A-Za-z0-9]{12,15}![A-Za-z0-9_.+/=\-]{60,}+",
    *(rf"S{second}[A-Z2-7]{{56}}{_ENDS}" for second in "UAOCNX"),
    r"tc_[A-Za-z0-9]{6,40}_[A-Za-z0-9\-]{20,}+",
)


def _by_first_letter(bodies: tuple[str, ...]) -> str:
    """``a(?:…|…)|b(?:…)``: the engine then tries a handful of alternatives instead of a hundred."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for body in bodies:
        groups[body[0]].append(body[1:])
    return "|".join(f"{first}(?:{'|'.join(rests)})" for first, rests in groups.items())


SHAPES = re.compile(
    r"(?:\b|(?<=\\[nrt])|(?<=%20|%22|%3[ADad]))(?=[A-Za-z0][A-Za-z0-9][A-Za-z0-9_.\-~])"
    rf"(?:{_by_first_letter(BODIES)})",
    re.ASCII,
)
"""Vendors' tokens that begin with letters of their own, at the beginning of a word, or after an escape that ends in a
letter or digit: a new line within JSON, a blank or ``=`` within an address."""


def _beginnings(bodies: tuple[str, ...]) -> Iterator[str]:
    """What tokens begin with before their random part, where that is a word of its own: ``xoxb-``, ``github_pat_``."""
    for body in bodies:
        first = re.split(r"\[[^\]]*-|\\d|\{", body)[0]
        least = re.sub(r"\(\?:[^)]*\)\?|\\", "", first).replace("(?:", "").replace(")", "")
        if (
            first.count("(") == first.count(")")
            and first[-1] in "-_~."
            and len(re.sub(r"\[.*?\]|\(.*?\)", "x", least)) >= 5
        ):
            yield first


BEGINNINGS = tuple(_beginnings(BODIES))

TEMPLATES = re.compile(rf"\b(?:{_by_first_letter(BEGINNINGS)})%[sdqrvx](?:[-_.]?%[sdqrvx])*+", re.ASCII)
"""Where a program puts a vendor's token together: ``xoxb-%s-%s``."""

LONG_BASE64 = re.compile(rf"(?<![A-Za-z0-9+/=_.\-])[A-Za-z0-9+/]{{{LONG},}}+={{0,2}}")
"""Nobody reads so much of it; keystores, service accounts and signed messages are written so."""

LOOSE_SHAPES = re.compile(
    r"Q~(?<=[A-Za-z0-9_.~-]{3}[78]Q~)[A-Za-z0-9_.\-~]{31,34}"
    r"|\.atlasv1\.(?<=[A-Za-z0-9]{14}\.atlasv1\.)[A-Za-z0-9_=\-]{50,}+"
    r"|-s4t2(?:ud|af)-[a-f0-9]{64}"
    r"|-(?:us\d(?<=[A-Za-z0-9_\-]{32}-us\d)\d?(?![A-Za-z0-9_\-])|[0-9a-f]{8}-[0-9a-f]{8}(?<=[0-9a-f]{32}.{18})(?![0-9a-f-]))"
    r"|NRAL(?<=[a-f0-9]{36}NRAL)"
    rf"|:AA(?<=\d{{6}}:AA){_W}{{30,}}+"
    rf"|\|(?<=\d{{13}}\|){_W}{{20,40}}(?![A-Za-z0-9_-])"
    r"|A[KS]IA[A-Z0-9]{16,}+"
    r"|_session=[A-Za-z0-9%._\-]{16,}+"
    r"|/token/[A-Za-z0-9+=_\-]{30,}+"
)
"""Tokens that are known by something in their middle, which comes first here so that it can be searched for; and the
ids of AWS keys that stick to other capitals."""

LOOSE_START = {"A": 0, "Q": -4, ".": -14, "-": -32, "N": -36, ":": 1, "|": 1, "_": 9, "/": 7}
"""Where the secret begins, counted from the sign that was found. Ids before ``:`` and ``|`` are no secrets."""

VENDOR_NAMES = (
    "airtable|algolia|asana|bitbucket|clickhouse|codecov|contentful|databricks|datadog|dropbox|dynatrace|etsy|facebook"
    "|fastly|finicity|grafana|heroku|hubspot|kraken|linkedin|mailgun|messagebird|netlify|newrelic|okta|openai|plaid"
    "|sendgrid|sentry|shopify|slack|snyk|sonar|sourcegraph|stripe|sumologic|telegram|trello|twilio|twitch|twitter"
)

VENDOR = re.compile(
    rf"\b(?:{_by_first_letter(tuple(VENDOR_NAMES.split('|')))})"
    r"[ \t\w.\-]{0,20}+[ \t\"'`]{0,3}+(?:=>|:=|\|\|:|[=:>,]|\?=)[ \t\"'`=\\]{0,5}+"
    r"([A-Za-z0-9_=\-]{14,150}+)(?![A-Za-z0-9_=.\-/])",
    re.IGNORECASE | re.ASCII,
)
"""A vendor's name in a variable, then a value; the caller asks whether it is strong."""

ANSI = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")
"""Colours. What they colour begins a word."""
