"""What `router-core policies` shows of healthy and of broken plugins."""

import json

import pytest


def flat(text):
    return " ".join(text.split())


# --- listing: metadata alone ---


def test_listing_imports_no_plugin(router_core, site):
    site.distribution("policy-bad", {"bad": "bad_module:Bad"})
    site.module("bad_module", "raise SystemExit('imported')")
    code, out, err = router_core("policies")
    assert (code, err) == (0, "")
    assert "bad_module:Bad" in out


def test_a_module_that_is_not_there_is_marked_and_not_fatal(router_core, site):
    site.distribution("policy-gone", {"gone": "gone_module:Gone"})
    code, out, _ = router_core("policies")
    assert code == 0
    assert "! its module 'gone_module' is not there" in flat(out)


def test_a_name_that_two_distributions_offer_is_marked(router_core, site):
    site.module("good")
    site.distribution("policy-one", {"twin": "good:Good"})
    site.distribution("policy-two", {"twin": "good:Good"})
    code, out, _ = router_core("policies")
    assert code == 0
    assert flat(out).count("! policy 'twin' is offered by policy-one 1.0 and policy-two 1.0") == 2


def test_damaged_metadata_is_shown_and_hides_nobody(router_core, site):
    site.module("good")
    site.distribution("policy-good", {"good": "good:Good"})
    broken = site.distribution("policy-broken", {"broken": "good:Good"})
    (broken / "METADATA").unlink()
    code, out, _ = router_core("policies")
    assert code == 0
    assert f"! damaged distribution {broken}: METADATA is missing" in out
    assert "policy-good" in out


def test_a_summary_cannot_steer_the_terminal(router_core, site):
    site.distribution("policy-loud", {"loud": "good:Good"}, summary="\x1b[2Jgone")
    assert "\x1b" not in router_core("policies").out


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_the_table_keeps_to_the_terminals_width(router_core, site, columns):
    site.distribution("policy-wordy", {"wordy": "good:Good"}, summary="word " * 100)
    lines = router_core("policies", COLUMNS=str(columns)).out.splitlines()
    assert lines[0].startswith("NAME")
    assert max(len(line) for line in lines) <= columns


def test_the_listing_as_json_holds_all_that_is_known(router_core, site):
    site.module("good")
    site.distribution("policy-good", {"good": "good:Good"})
    code, out, _ = router_core("policies", "--json")
    assert code == 0
    [plugin] = [plugin for plugin in json.loads(out)["policies"] if plugin["name"] == "good"]
    assert plugin == {
        "name": "good",
        "group": "router_core.policies",
        "distribution": "policy-good",
        "version": "1.0",
        "summary": "Does its best",
        "target": "good:Good",
        "problems": [],
    }


# --- one policy: its code, in a process of its own ---

BROKEN_MODULES = {
    "raises": ("raise ValueError('no GPU here')", "no GPU here"),
    "syntax error": ("def broken(:", "SyntaxError"),
    "missing class": ("x = 1", "Good"),
    "calls sys.exit": ("import sys; sys.exit(0)", "SystemExit"),
    "ends the process": ("import os; os._exit(0)", "its import ended the process with exit code 0"),
    "prints and ends": (
        "import os; os.write(1, b'{}'); os._exit(3)",
        "exit code 3; a module must not do that (its last",
    ),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed the process with SIGSEGV"),
    "no hook at all": ("class Good: ...", "implements neither select_single nor select_pair"),
    "hook unmarked": ("class Good:\n  def select_single(self, workers): ...", "no @hookimpl"),
    "hostile class": (
        "class Meta(type):\n  def __getattribute__(cls, name): raise RuntimeError('go away')\n"
        "class Good(metaclass=Meta): ...",
        "go away",
    ),
}


@pytest.mark.parametrize(("source", "reason"), BROKEN_MODULES.values(), ids=BROKEN_MODULES)
def test_a_policy_that_cannot_be_used_is_told_with_the_reason(router_core, site, source, reason):
    site.distribution("policy-good", {"good": "good:Good"})
    site.module("good", source)
    code, out, err = router_core("policies", "good")
    assert (code, err) == (1, "")
    assert "! policy 'good'" in out
    assert reason in flat(out)


def test_an_import_that_hangs_is_given_up(router_core, site):
    site.distribution("policy-good", {"good": "good:Good"})
    site.module("good", "while True: pass")
    code, out, _ = router_core("policies", "good", "--timeout-s", "1")
    assert code == 1
    assert "its import has not ended within 1 s" in out


def test_what_a_plugin_prints_reads_or_leaves_running_does_no_harm(router_core, site):
    site.distribution("policy-good", {"good": "good:Good"})
    source = (
        site.good_source
        + "import atexit, sys, threading, time\n"
        + "print('hello'); sys.stdin.read(); sys.stdout.write('{' * 100000)\n"
        + "atexit.register(time.sleep, 1000); threading.Thread(target=time.sleep, args=(1000,)).start()\n"
    )
    site.module("good", source)
    code, out, err = router_core("policies", "good")
    assert (code, err) == (0, "")
    assert out.startswith("good  (policy-good 1.0, good:Good)")


def test_an_unknown_policy_gets_the_nearest_name(router_core, site):
    site.distribution("policy-good", {"sticky_user": "good:Good"})
    code, out, err = router_core("policies", "stiky_user")
    assert (code, out) == (2, "")
    assert "router-core: error: policy 'stiky_user' is not installed; did you mean 'sticky_user'?" in err
    code, out, _ = router_core("policies", "stiky_user", "--json")
    assert code == 2
    assert json.loads(out)["is_unknown"] is True


def test_a_policy_is_shown_with_its_options_hooks_and_needs(router_core, site):
    site.distribution("policy-good", {"good": "good:Good"})
    site.module("good")
    code, out, _ = router_core("policies", "good")
    assert code == 0
    assert out.splitlines() == [
        "good  (policy-good 1.0, good:Good)",
        "  Take the least loaded one.",
        "  hooks: select_single",
        "  needs: prefix",
        "  OPTION  WHAT IT DOES, WHAT IT TAKES",
        "  margin  How much busier a home may be.",
        "          int, default 8",
    ]


def test_a_policy_as_json(router_core, site):
    site.distribution("policy-good", {"good": "good:Good"})
    site.module("good")
    described = json.loads(router_core("policies", "good", "--json").out)
    assert described["hooks"] == ["select_single"]
    assert described["options"][0]["name"] == "margin"
    assert described["problems"] == []


def test_an_in_house_policy_is_looked_up_in_the_app_dir(router_core, tmp_path, site):
    site.module("good")
    (tmp_path / "house").mkdir()
    (site.folder / "good.py").rename(tmp_path / "house" / "mine.py")
    assert router_core("policies", "mine:Good").code == 1
    code, out, _ = router_core("policies", "mine:Good", "--app-dir", "house")
    assert code == 0
    assert out.startswith("mine:Good  (in-house, mine:Good)")


def test_loading_all_tells_the_broken_from_the_sound(router_core, site):
    site.distribution("policies-mixed", {"good": "good:Good", "bad": "bad:Bad"})
    site.module("good")
    site.module("bad", "1 / 0")
    code, out, err = router_core("policies", "--load")
    assert (code, err) == (1, "")
    assert "division by zero" in out
    assert "margin  How much busier" in out
    described = {
        policy["name"]: policy for policy in json.loads(router_core("policies", "--load", "--json").out)["policies"]
    }
    assert described["bad"]["problems"]
    assert not described["good"]["problems"]
