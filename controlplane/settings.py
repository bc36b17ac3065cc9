"""All settings, from the environment with working defaults: no environment at all gives SQLite under ./var."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from environs import Env

from controlplane.kernel.secretfile import read_or_create

env = Env()
BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env.str("DATA_DIR", str(BASE_DIR / "var"))).resolve()

DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)  # sessions, files of customers, secrets

# -- safety ------------------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", False)
SECRET_KEY = env.str("SECRET_KEY", "") or read_or_create(DATA_DIR / "secrets" / "secret_key")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]", "testserver"])
PUBLIC_URL = env.str("PUBLIC_URL", f"http://127.0.0.1:{env.str('PORT', '8000')}")
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", [PUBLIC_URL])
# Only behind a front that always sets this field itself: otherwise any caller could claim to have come by TLS.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_TLS_PROXY", False) else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SAMESITE = "Lax"

# -- what is installed ---------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "controlplane",
    "controlplane.kernel",
    "builds",
    "billing",
    "fleet",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "django_q",
]
MIDDLEWARE = [
    "controlplane.kernel.requests.RequestLog",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "controlplane.kernel.requests.ContentPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "controlplane.urls"
WSGI_APPLICATION = "controlplane.wsgi.application"
APPEND_SLASH = True
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.debug",
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}]
LOGIN_URL = "/ops/login/"
LOGIN_REDIRECT_URL = "/ops/"
LOGOUT_REDIRECT_URL = "/ops/login/"

# -- database ------------------------------------------------------------------------------------
DATABASES = {"default": env.dj_db_url("DATABASE_URL", f"sqlite:///{DATA_DIR / 'comfyplane.sqlite3'}", conn_max_age=600)}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA busy_timeout=20000;PRAGMA foreign_keys=ON;",
    }
DB_PREPARE = env.bool("DB_PREPARE", True)  # off behind a transaction pooler that cannot keep prepared statements
if DB_PREPARE and DATABASES["default"]["ENGINE"].endswith("postgresql"):
    # Django's default, None, makes psycopg ignore `prepare=True` as well (kernel/sql.py).
    DATABASES["default"].setdefault("OPTIONS", {})["prepare_threshold"] = 5
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- time and language -----------------------------------------------------------------------------
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False

# -- files -----------------------------------------------------------------------------------------
STATIC_URL = "/static/"
# An image brings them collected and compressed; a checkout serves them as they lie.
COLLECTED = env.str("STATIC_DIR", "")
STATIC_ROOT = Path(COLLECTED) if COLLECTED else DATA_DIR / "static"
WHITENOISE_USE_FINDERS = not COLLECTED
BLOB_BUCKET = env.str("BLOB_BUCKET", "")
STORAGES = {
    "default": (
        {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {"bucket_name": BLOB_BUCKET, "endpoint_url": env.str("BLOB_ENDPOINT", None)}}
        if BLOB_BUCKET
        else {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(DATA_DIR / "blobs")}}
    ),
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
DATA_UPLOAD_MAX_MEMORY_SIZE = env.int("MAX_BODY_BYTES", 8_000_000)
FILE_UPLOAD_MAX_MEMORY_SIZE = 1_000_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200
DATA_UPLOAD_MAX_NUMBER_FILES = 32
MAX_FILE_BYTES = env.int("MAX_FILE_BYTES", 64_000_000)
MAX_IMAGE_PIXELS = env.int("MAX_IMAGE_PIXELS", 64_000_000)
MAX_OUTPUT_BYTES = env.int("MAX_OUTPUT_BYTES", 512_000_000)

# -- the web process ---------------------------------------------------------------------------------
WEB_THREADS = env.int("WEB_THREADS", 8)  # half of them may wait for a job to end (Prefer: wait)
# Reads /metrics where a proxy stands between, as `up`'s own does; kept in DATA_DIR when none is given.
METRICS_TOKEN = env.str("METRICS_TOKEN", "") or read_or_create(DATA_DIR / "secrets" / "metrics_token")

# -- the API -----------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["billing.authentication.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["billing.authentication.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "controlplane.kernel.envelope.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Comfyplane API",
    "DESCRIPTION": "Run ComfyUI workflows as metered APIs.",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": r"/v1",
    "PREPROCESSING_HOOKS": ["controlplane.api.schema.only_v1"],
    "POSTPROCESSING_HOOKS": ["controlplane.api.schema.complete"],
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
}

# -- workers -----------------------------------------------------------------------------------------
WORKER = {
    "HEARTBEAT_S": env.float("WORKER_HEARTBEAT_S", 2.0),
    "LEASE_S": env.float("WORKER_LEASE_S", 15.0),
    "POLL_WAIT_S": env.float("WORKER_POLL_WAIT_S", 20.0),
    "SILENCE_EXIT_S": env.float("WORKER_SILENCE_EXIT_S", 60.0),
    "START_S": env.float("WORKER_START_S", 120.0),
    "FAULT_KEEP_S": env.float("WORKER_FAULT_KEEP_S", 1800.0),  # a worker taken out as faulty is kept so long to be looked at
    # What a new worker runs before its first claim: so many smoke jobs of its pool, which took so long together when they were measured.
    "WARMUP_PROMPTS": env.int("WORKER_WARMUP_PROMPTS", 3),
    "WARMUP_S": env.float("WORKER_WARMUP_S", 60.0),
    "SMOKE_GPU": env.bool("SMOKE_GPU", False),  # whether a built image is tried with a GPU; on the processor otherwise
}
AGENT_URL = env.str("AGENT_URL", PUBLIC_URL)
PROVIDER_RETRY_S = env.float("PROVIDER_RETRY_S", 15.0)  # after a provider did not take an order
OFFER_RETRY_S = env.float("OFFER_RETRY_S", 300.0)  # before a kind of machine that could not be had is tried again

# -- building images: docs/builds.md -----------------------------------------------------------------
BUILD: dict[str, Any] = {
    # what an image is made from, unless a workflow says otherwise
    "COMFYUI_REPOSITORY": env.str("BUILD_COMFYUI_REPOSITORY", ""),
    "COMFYUI_REF": env.str("BUILD_COMFYUI_REF", ""),
    "PYTHON_VERSION": env.str("BUILD_PYTHON_VERSION", "3.11"),
    "ARCH": env.str("BUILD_ARCH", "amd64"),
    "BASE_IMAGE": env.str("BUILD_BASE_IMAGE", "python:3.11-slim-bookworm"),
    "TORCH_BACKEND": env.str("BUILD_TORCH_BACKEND", ""),
    "CONSTRAINTS": env.list("BUILD_CONSTRAINTS", []),
    "LEAVE_OUT": env.list("BUILD_LEAVE_OUT", []),
    "AGENT_REQUIREMENTS": env.list("BUILD_AGENT_REQUIREMENTS", ["httpx", "websockets", "psutil", "pillow", "numpy", "imagehash", "soundfile"]),
    "OS_PACKAGES": env.list("BUILD_OS_PACKAGES", []),
    "TOOLS": env.list("BUILD_TOOLS", []),  # compilers: for installing, not in the image
    # where it is had: none of this enters a lock
    "CACHE": env.str("BUILD_CACHE", str(DATA_DIR / "sources")),
    "COMFYUI_SOURCE": env.str("BUILD_COMFYUI_SOURCE", ""),
    "PACK_MIRROR": env.str("BUILD_PACK_MIRROR", ""),
    "PACK_REGISTRY": env.str("BUILD_PACK_REGISTRY", ""),
    "PACKAGE_INDEX": env.str("BUILD_PACKAGE_INDEX", ""),
    "FIND_LINKS": env.list("BUILD_FIND_LINKS", []),
    "GIT_PROTOCOLS": env.list("BUILD_GIT_PROTOCOLS", ["https"]),
    "REQUIREMENT_HOSTS": env.list("BUILD_REQUIREMENT_HOSTS", []),
    "SOURCE_BUILDS": env.bool("BUILD_SOURCE_BUILDS", False),
    "PIP_CONF": env.str("BUILD_PIP_CONF", ""),  # given to pip as a secret, so it may hold credentials
    "CA_BUNDLE": env.str("BUILD_CA_BUNDLE", ""),
    "ADVISORIES": env.str("BUILD_ADVISORIES", ""),
    # who builds, and for how long
    "DOCKER": env.str("BUILD_DOCKER", ""),
    "DOCKER_HOST": env.str("BUILD_DOCKER_HOST", env.str("DOCKER_HOST", "unix:///var/run/docker.sock")),
    "NETWORK": env.str("BUILD_NETWORK", "default"),
    "PLATFORMS": env.list("BUILD_PLATFORMS", []),  # empty: this machine's own
    "IMAGE_NAME": env.str("BUILD_IMAGE_NAME", "comfyplane-worker"),
    "REGISTRY": env.str("BUILD_REGISTRY", "").rstrip("/"),
    "REGISTRY_CREDENTIALS": env.str("BUILD_REGISTRY_CREDENTIALS", ""),  # a file with name:password
    "TIMEOUT_S": env.int("BUILD_TIMEOUT_S", 3600),
    "PACK_INSTALL_S": env.int("BUILD_PACK_INSTALL_S", 600),
    "CHECK_S": env.int("BUILD_CHECK_S", 300),
    "CHECK_MEMORY_MIB": env.int("BUILD_CHECK_MEMORY_MIB", 4096),
    "LEASE_S": env.float("BUILD_LEASE_S", 60.0),
}

# -- webhooks ----------------------------------------------------------------------------------------
WEBHOOK_ALLOW_NETWORKS: list[str] = env.list("WEBHOOK_ALLOW_NETWORKS", [])  # e.g. 127.0.0.0/8 in tests; private ranges are refused otherwise
WEBHOOK_TIMEOUT_S = env.float("WEBHOOK_TIMEOUT_S", 10.0)

# -- housekeeping (never dispatch): see docs/processes.md ------------------------------------------------
HEARTBEAT_FILE = env.str("HEARTBEAT_FILE", "")  # touched while controller or tasks work, for a liveness probe
Q_CLUSTER = {
    "broker_class": "controlplane.kernel.heartbeat.Broker",
    "name": "comfyplane",
    "orm": "default",
    "workers": 2,  # a build takes minutes: it leaves room for the others
    "queue_limit": 1,
    "bulk": 1,
    "timeout": 300,
    "retry": 1200,
    "save_limit": 0,
    "ack_failures": True,
    "max_attempts": 3,
    "poll": 2.0,
    "catch_up": False,
}

# -- logs --------------------------------------------------------------------------------------------
LOGGING_CONFIG = "controlplane.kernel.logs.configure"
LOGGING = {"level": env.str("LOG_LEVEL", "INFO"), "json": env.bool("LOG_JSON", True)}

# -- admin -------------------------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "Comfyplane",
    "SITE_HEADER": "Comfyplane",
    "SITE_SUBHEADER": "Configuration",
    "SITE_URL": "/ops/",
    "SITE_ICON": f"{STATIC_URL}cp/icon.svg",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": f"{STATIC_URL}cp/icon.svg"}],
    "SITE_DROPDOWN": [{"icon": "arrow_back", "title": "Back to the console", "link": "/ops/"}],
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "BORDER_RADIUS": "5px",
    "COLORS": {
        "primary": {  # the console's accent
            "50": "#f4f3fd",
            "100": "#edebfc",
            "200": "#dedafa",
            "300": "#c9c3f3",
            "400": "#aba0ff",
            "500": "#7a6be6",
            "600": "#5140cc",
            "700": "#4535b0",
            "800": "#382b8f",
            "900": "#262247",
            "950": "#14112c",
        }
    },
}
