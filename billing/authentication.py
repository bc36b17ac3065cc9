"""DRF authentication by API key (placeholder until billing.keys lands)."""

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission


class KeyAuthentication(BaseAuthentication):
    pass


class HasScope(BasePermission):
    pass
