"""Signing in and out."""

from __future__ import annotations

from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest


class StaffForm(AuthenticationForm):
    """Refuses with what to do next."""

    error_messages = {
        "invalid_login": "The name or the password is not right. Passwords are case-sensitive.",
        "inactive": "This account is switched off. Ask an administrator to switch it on.",
    }

    def __init__(self, request: HttpRequest | None = None, *args: object, **kwargs: object) -> None:
        super().__init__(request, *args, **kwargs)  # type: ignore[arg-type]


class SignIn(LoginView):
    template_name = "console/login.html"
    authentication_form = StaffForm
    redirect_authenticated_user = True


sign_in = SignIn.as_view()
sign_out = LogoutView.as_view()
