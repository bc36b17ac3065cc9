"""What orchestrators ask: /healthz, is this process alive; /readyz, should it get work.

`/readyz?without=loops` leaves out the controller, for load balancers: a web process can admit jobs
while no controller runs, and taking it away as well would make things worse.
"""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from controlplane.kernel import health


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as the process answers; asks nothing of the database."""
    return JsonResponse({"status": "alive"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when every check holds, 503 otherwise; the body names each."""
    left_out = {name for text in request.GET.getlist("without") for name in text.split(",")}
    checks = [check for check in health.readiness(timezone.now()) if check.name not in left_out]
    ready = all(check.ok for check in checks)
    body = {"status": "ready" if ready else "not ready", "checks": [check.to_json() for check in checks]}
    return JsonResponse(body, status=200 if ready else 503)
