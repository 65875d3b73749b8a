"""A host key stands for the names Ansible makes of it; what it would make nonsense of is refused."""

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.utils.addresses import parse_address
from ansible.plugins.inventory import detect_range, expand_hostname_range
from hypothesis import given, settings
from hypothesis import strategies as st

from coldstart.hostrange import MAX_HOSTS, HostNameError, expand


@pytest.mark.parametrize(
    ("pattern", "names", "port"),
    [
        ("pi", "pi", None),
        ("pi[1:3]", "pi1 pi2 pi3", None),
        ("pi[08:11]", "pi08 pi09 pi10 pi11", None),
        ("pi[1:03]", "pi1 pi2 pi3", None),
        ("pi[:2]", "pi0 pi1 pi2", None),
        ("pi[0:10:5]", "pi0 pi5 pi10", None),
        ("box-[a:c].lan", "box-a.lan box-b.lan box-c.lan", None),
        ("[y:B]", "y z A B", None),
        ("[a:e:2]", "a c e", None),
        ("r[1:2]-[a:b]", "r1-a r1-b r2-a r2-b", None),
        ("10.0.0.[9:10]", "10.0.0.9 10.0.0.10", None),
        ("pi[1:2]:2222", "pi1 pi2", 2222),
        ("web:22", "web", 22),
        ("[web]:22", "web", 22),
        ("2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]:22", "2001:db8::1", 22),
        ("2001:db8::[1:2]", "2001:db8::1 2001:db8::2", None),
        ("::1", "::1", None),
    ],
)
def test_expands(pattern, names, port):
    assert expand(pattern) == (names.split(), port)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pi[1:", "'pi[1:': a bracket without its other (a range"),
        ("pi1:3]", "'pi1:3]': a bracket without"),
        ("pi[1:[2:3]]", "'pi[1:[2:3]]': a bracket without"),
        ("pi[]", "'pi[]': [] is not a range of hosts (write begin and end"),
        ("pi[1]", "'pi[1]': [1] is not a range of hosts (write begin and end"),
        ("pi[1:]", "'pi[1:]': [1:] is not a range of hosts (write begin and end"),
        ("pi[1-3]", "'pi[1-3]': [1-3] is not a range"),
        ("pi[1:2:3:4]", "'pi[1:2:3:4]': [1:2:3:4] is not a range"),
        ("pi[3:1]", "'pi[3:1]': [3:1] is not a range of hosts (it begins after its end)"),
        ("pi[c:a]", "'pi[c:a]': [c:a] is not a range of hosts (it begins after"),
        ("pi[01:100]", "'pi[01:100]': [01:100] is not a range of hosts (write both ends with 2 digits)"),
        ("pi[1:3:0]", "'pi[1:3:0]': [1:3:0] is not a range of hosts (the step is"),
        ("pi[1:3:-1]", "'pi[1:3:-1]': [1:3:-1] is not a range of hosts (the step is"),
        ("pi[ab:cd]", "'pi[ab:cd]': [ab:cd] is not a range of hosts (two numbers or two letters"),
        ("pi[a:3]", "'pi[a:3]': [a:3] is not a range of hosts (two numbers or two letters"),
        ("pi[+1:3]", "'pi[+1:3]': [+1:3] is not a range"),
        ("pi[0:999999999999]", "'pi[0:999999999999]' are more than 10,000 hosts"),
        ("p[0:999][0:999]", "'p[0:999][0:999]' are more than 10,000 hosts"),
        ("[1:3]:22", "'[1:3]:22': is this a range or an address?"),
        ("[1:3]x[1:2]:22", "'[1:3]x[1:2]:22': is this a range or an address?"),
        ("[2001:db8::1]", "'[2001:db8::1]': brackets are for ranges (write the address without"),
        ("web:0", "'web:0': 0 is not a port"),
        ("web:99999", "'web:99999': 99999 is not a port"),
        ("web-:22", "'web-:22' is not a host name"),
        ("web:ssh", "'web:ssh' is not a host name"),
        (":22", "':22' is not a host name"),
        ("a b", "'a b' is not a host name (letters, digits, _ . - and ranges like [01:20])"),
        ("-a", "'-a' is not a host name"),
        ("a\n", "'a\\n' is not a host name"),
        ("fe80::1%eth0", "'fe80::1%eth0' is not a host name"),
        ("", "'' is not a host name"),
    ],
)
def test_refuses(pattern, message):
    with pytest.raises(HostNameError) as error:
        expand(pattern)
    assert f"{error.value} ({error.value.hint})".startswith(message)


def test_ten_thousand_hosts_are_read():
    assert len(expand(f"pi[1:{MAX_HOSTS}]")[0]) == MAX_HOSTS


def ansibles(pattern):
    """What Ansible makes of it, as BaseInventoryPlugin does it."""
    try:
        pattern, port = parse_address(pattern, allow_ranges=True)
    except AnsibleError:
        port = None
    return (expand_hostname_range(pattern) if detect_range(pattern) else [pattern]), port


_BOUND = st.integers(0, 30).map(str) | st.integers(0, 30).map("{:02}".format) | st.sampled_from("abcxyzAB")
_RANGES = st.lists(_BOUND, min_size=2, max_size=2).map(":".join) | st.tuples(
    _BOUND, _BOUND, st.integers(1, 4).map(str)
).map(":".join)
_PIECES = st.sampled_from(["a", "b1", "-", ".", "_", "10.0.0.", ":22", ":", "::", "2001:db8::"]) | _RANGES.map(
    "[{}]".format
)


@given(st.lists(_PIECES, min_size=1, max_size=4).map("".join))
@settings(max_examples=500, deadline=None)
def test_what_is_read_is_what_ansible_reads(pattern):
    try:
        mine = expand(pattern)
    except HostNameError:
        return
    assert mine == ansibles(pattern)
