"""A Django project of one file: `django_app.py DATABASE COMMAND ARGUMENTS...`, with an answer in JSON."""

import json
import sys

import django
from django.conf import settings


def database(at):
    if "://" not in at:
        wal = {"init_command": "PRAGMA journal_mode=WAL;"}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": at, "OPTIONS": wal}
    host, name = at.removeprefix("postgres://").split("/")
    user, address = host.split("@")
    host, port = address.split(":")
    engine = "django.db.backends.postgresql"
    return {"ENGINE": engine, "NAME": name, "USER": user, "HOST": host, "PORT": port}


settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
    ],
    DATABASES={"default": database(sys.argv[1])},
    SECRET_KEY="of a test",
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402


def setup():
    call_command("migrate", verbosity=0)
    for number in range(20):
        User.objects.create(username=f"user{number}", email=f"{number}@example.com")
    session = SessionStore()
    session["cart"] = [1, 2]
    session.create()


def users():
    return [
        [user.pk, user.username, user.email, user.is_active, user.date_joined.isoformat()]
        for user in User.objects.order_by("pk")
    ]


def rename(name, email):
    return User.objects.filter(username=name).update(email=email)


def delete():
    return User.objects.all().delete()[0]


def cart(key):
    return SessionStore(key).load().get("cart")


print(json.dumps(globals()[sys.argv[2]](*sys.argv[3:])))
