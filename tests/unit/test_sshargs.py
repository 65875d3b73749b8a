"""ssh's options become data; what cannot be honoured, and what would not verify host keys, is refused by its name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldstart.sshargs import SshArgs, SshArgsError, parse


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", SshArgs()),
        ("-J bastion", SshArgs(jump="bastion")),
        ("-Jme@a:22,b", SshArgs(jump="me@a:22,b")),
        ("-o ProxyJump=[2001:db8::1]:22", SshArgs(jump="[2001:db8::1]:22")),
        ("-o ProxyJump=none", SshArgs()),
        (
            '-o ProxyCommand="ssh -W %h:%p -q bastion"',
            SshArgs(proxy_command=("ssh", "-W", "%h:%p", "-q", "bastion")),
        ),
        ("-o 'ProxyCommand exec nc %h %p'", SshArgs(proxy_command=("nc", "%h", "%p"))),
        ("-o ProxyCommand=none", SshArgs()),
        ("-o 'UserKnownHostsFile=~/.ssh/a b.txt'", SshArgs(known_hosts_files=("~/.ssh/a", "b.txt"))),
        ("""-o 'UserKnownHostsFile="a b"'""", SshArgs(known_hosts_files=("a b",))),
        ("-i a -o IdentityFile=b -oIdentityFile=c", SshArgs(identity_files=("a", "b", "c"))),
        ("-i 'my key'", SshArgs(identity_files=("my key",))),
        ("-o IdentitiesOnly=yes", SshArgs(identities_only=True)),
        ("-o identitiesonly=no", SshArgs()),
        ("-l pi -p 2222 -F none", SshArgs(user="pi", port=2222, config_file="none")),
        ("-lpi -qTp2222", SshArgs(user="pi", port=2222)),
        ("-oUser=pi -o 'Port 2222'", SshArgs(user="pi", port=2222)),
        ("-p 1 -o Port=2", SshArgs(port=1)),
        ("-o 'Port = 3'", SshArgs(port=3)),
        ("-o ConnectTimeout=10", SshArgs(connect_timeout_s=10.0)),
        ("-o ConnectTimeout=1m30s", SshArgs(connect_timeout_s=90.0)),
        ("-o ConnectTimeout=none", SshArgs()),
        (
            "-o ServerAliveInterval=15 -o ServerAliveCountMax=3",
            SshArgs(server_alive_interval_s=15.0, server_alive_count_max=3),
        ),
        ("-o StrictHostKeyChecking=accept-new", SshArgs(accept_new=True)),
        ("-o StrictHostKeyChecking=yes", SshArgs()),
        ("-o StrictHostKeyChecking=ask", SshArgs()),
        ("-C -q -T -x -a -vvv -o ControlMaster=auto -o ControlPersist=60s -S /run/%C", SshArgs()),
        ("-o LogLevel=ERROR -o BatchMode=yes -o ForwardAgent=no -o PreferredAuthentications=publickey", SshArgs()),
    ],
)
def test_options_become_data(text, meant):
    assert parse(text) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-o StrictHostKeyChecking=no", "StrictHostKeyChecking=no: host keys are always verified"),
        ("-oStrictHostKeyChecking=OFF", "StrictHostKeyChecking=OFF: host keys are always verified"),
        ("-o 'stricthostkeychecking no'", "StrictHostKeyChecking=no: host keys are always"),
        ("-o StrictHostKeyChecking=yes -o StrictHostKeyChecking=no", "StrictHostKeyChecking=no: host keys"),
        ("-o StrictHostKeyChecking=maybe", "StrictHostKeyChecking: 'maybe' is not honoured here"),
        ("-o UserKnownHostsFile=/dev/null", "UserKnownHostsFile=/dev/null: host keys are always verified"),
        ("-o 'UserKnownHostsFile=a /dev/null'", "UserKnownHostsFile=a /dev/null: host keys"),
        ("-o UserKnownHostsFile=none", "UserKnownHostsFile=none: host keys"),
        ("-o ProxyUseFdpass=yes", "'ProxyUseFdpass' is not read here"),
        ("-o PermitLocalCommand=yes", "'PermitLocalCommand' is not read here"),
        ("-o LocalCommand=x", "'LocalCommand' is not read here"),
        ("-o ConfigFile=x", "'ConfigFile' is not read here"),
        ("-o '=x'", "'=x' is not read here"),
        ("-L 80:a:80", "'-L' is not read here"),
        ("-A", "'-A' is not read here"),
        ("-o ForwardAgent=yes", "ForwardAgent: 'yes' is not honoured here, only no or false"),
        ("-o PreferredAuthentications=password", "PreferredAuthentications: 'password' is not honoured"),
        ("-J", "-J needs a value"),
        ("-o", "-o needs a value"),
        ("-o Port", "Port needs a value"),
        ("bastion", "'bastion' is not an option of ssh"),
        ("-J a b", "'b' is not an option of ssh"),
        ("-", "'-' is not an option of ssh"),
        ("-p 0", "Port: '0' is not a number from 1 to 65535"),
        ("-p ssh", "Port: 'ssh' is not a number"),
        ("-o ConnectTimeout=soon", "ConnectTimeout: 'soon' is not a time in seconds"),
        ("-o User=-x", "User: '-x' would be taken for an option"),
        ("-l 'a b'", "User: 'a b' is not a name"),
        ("-J=-x@b", "ProxyJump: '=-x' is not a name"),
        ("-J -oProxyCommand=x", "ProxyJump: '-oProxyCommand=x' would be taken for an option"),
        ("-J 'a;b'", "ProxyJump: 'a;b' is not a name"),
        ("-J a,,b", "ProxyJump: is empty"),
        ("-o 'ProxyCommand=ssh a | tee b'", "ProxyCommand: no shell reads it here"),
        ("-o 'ProxyCommand=nc $(id)'", "ProxyCommand: no shell reads it here"),
        ("-o 'ProxyCommand=nc %d'", "ProxyCommand: '%d': only %h, %p, %r, %n and %% are filled in"),
        ("-J a -o 'ProxyCommand=nc %h %p'", "ProxyJump and ProxyCommand exclude each other"),
        ("-J 'a", 'No closing quotation in "-J \'a"'),
        ("-J a\n-q", "holds a control character or a line break"),
    ],
)
def test_what_cannot_be_honoured_is_refused(text, message):
    with pytest.raises(SshArgsError) as error:
        parse(text)
    assert str(error.value).startswith(message)


def test_a_refusal_of_an_option_lists_what_is_read():
    with pytest.raises(SshArgsError) as error:
        parse("-o Ciphers=x")
    assert "ProxyJump" in error.value.hint
    with pytest.raises(SshArgsError) as error:
        parse("-o StrictHostKeyChecking=no")
    assert "--accept-new-host-keys" in error.value.hint


@given(st.text(st.sampled_from("-oJlpiF =\"'%ahPort,@:12none\\\n"), max_size=30) | st.text(max_size=20))
@settings(deadline=None)
def test_anything_is_read_or_refused(text):
    try:
        result = parse(text)
    except SshArgsError as error:
        result = str(error)
    assert result
