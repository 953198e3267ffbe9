"""The rows of JSON answers, as programs get them (`walt … --json` prints the same)."""

from __future__ import annotations

from walt.rpc.shapes import OrNull, Pairs, Row, Rows, Tables

NODES = Tables(
    Row(
        name="text of the device",
        mac="[text] MAC, lower case, with colons",
        ip="text? IPv4 address in walt-net",
        type="text physical, virtual or vpn",
        virtual="[truth] a machine of this server or of another one",
        model="text? like pc-x86-64",
        image="[text?] full name of the image it boots, <user>/<name>:<tag>",
        image_name="text the same without user, and without the tag latest",
        owner="text? the user whose image it boots; null: it is free",
        clonable_image_link="text? what `walt image clone` takes",
        netsetup="text LAN or NAT",
        booted="truth it said so, and has not been lost since",
        powersave="truth its port was switched off to save power",
        state="[text] off, booting, booted, failed",
        boot_stage="[text?] how far its boot is",
        failure="[text?] why nothing is done any more to make it boot",
        trouble="text? what keeps it from booting at present",
        reserved_by="text? the user for whom a script has reserved it",
        reserved_until="number? epoch seconds, when that ends at the latest",
        config="[object] effective values of its settings, by name",
    ),
    "own", "free", "others", total="nodes of the platform, those not shown included",
)
LISTED_NODES = NODES.listed(
    "name", "ip", "type", "model", "image_name", "owner", "clonable_image_link", "netsetup",
    "booted", "powersave", "trouble", "reserved_by", "reserved_until",
)
LEFT = Rows(Row(
    name="text of the node",
    mac="text MAC, lower case, with colons",
    reason="text? why it did not reboot softly; null: that was not tried",
))
RESERVATIONS = Rows(Row(
    node="text its name",
    user="text who has reserved it",
    until="number epoch seconds, when that ends at the latest",
))
BOOTS = Rows(Row(
    node="text its name then",
    mac="text MAC, lower case, with colons",
    image="text? full name of the image it booted, <user>/<name>:<tag>",
    digest="text? address of the manifest of that image",
    cause="text? why it boots; null: nobody told",
    tries="whole how often it began: by itself, or because it was late",
    outcome="text booting, booted, failed (given up), or interrupted (by another boot)",
    reason="text? why it failed, or the cause of the boot that interrupted it",
    stage="text the last one that the last try reached: the fields below are their names",
    asked="number epoch seconds: when it was asked for, or first seen",
    started="number? epoch seconds: machine started, or told to reboot, in the last try",
    address="number? the same: it got its address (DHCP)",
    script="number? the same: it fetched the boot script",
    kernel="number? the same: it began to fetch the kernel",
    root="number? the same: its root file system was mounted",
    system="number? the same: the system of its image started",
    ready="number? the same: it was booted",
))
PLANS = Rows(Row(
    name="text of the node, or of another device",
    owner="text? the user whose image it boots; null: it is free, or no node",
    booted="truth it said so, and has not been lost since",
    sessions="objects who works on it now: user, kind (in a few words), since (epoch seconds)",
    reserved_by="text? the user for whom a script has reserved it",
    reserved_until="number? epoch seconds, when that ends at the latest",
    disturbed="truth another user owns it, a script has reserved it, or a session is open",
))
EXPERIMENTS = Rows(Row(
    user="text who runs it",
    run="text 12 hexadecimal digits, as in the manifest of its archive",
    name="text of the experiment",
    state="text preparing, running, done, failed, interrupted or released",
    active="truth it prepares or runs, and its client is online",
    online="truth its client said a word within 60 s",
    nodes="texts names of its nodes",
    started="number epoch seconds",
    last_seen="number epoch seconds of the last word of its client",
    point="whole the last point that ended; 0: none yet",
    points="whole how many there are",
    failed="whole how many points did not end well",
    failed_point="whole the last one of these; 0: none",
))
USER_KEYS = Rows(Row(
    type="text like ssh-ed25519",
    fingerprint="text SHA256:…, as ssh-keygen -l prints it",
    comment="text what its owner calls it",
))
DEVICES = Tables(
    Row(
        name="text of the device",
        ip="text? IPv4 address",
        mac="text MAC, lower case, with colons",
        type="text server, node, switch or unknown",
        node_type="text? physical, virtual or vpn; null: it is no node",
        netsetup="text? LAN or NAT; null outside walt-net, and for the server",
        switch="text? name of the switch it is connected to",
        port="text? name of its port there",
        evidence="text? lldp-both, lldp, bridge, report; old: it was not seen at the last look",
    ),
    "known", "unknown",
)
SCANNED = Rows(Row(
    name="text of the device",
    mac="text MAC, lower case, with colons",
    result="text OK, FAILED, FORBIDDEN or INVALID",
    detail="text? why, and what to do",
))
BRANCHES = Rows(Row(
    depth="whole 0 below the root; the branch above is the last one with one less",
    name="text of the device",
    mac="text MAC, lower case, with colons",
    kind="text switch, node, server, unknown; back: shown elsewhere; hidden: what is left out",
    above="text? the device it is connected to, one line up the tree",
    port="text? name of the port there",
    port_number="whole? ifIndex of the port there",
    far_port="text? name of the port of the device itself",
    evidence="text lldp-both, lldp, bridge or report",
    confirmed="truth it was there at the last look",
    seen="number epoch seconds, the last time it was there",
    cables="texts ports of parallel cables",
    poe="text? on, off, unavailable: power of the port, as the switch last said",
    poe_reason="text? why the server switched it off",
    explorable="truth it is a switch that may be explored",
))
PORTS = Rows(Row(
    port="whole ifIndex",
    name="text given by people; else the number",
    interface="text ifName",
    numbers="text all numbers that the tables of the switch give it",
    link="text up, down, unknown: as it was when the switch was read last",
    poe="text on, off, unavailable",
    poe_reason="text? why the server switched it off",
    peer="text? name of the device there",
    evidence="text? lldp-both, lldp, bridge or report",
    confirmed="truth? the peer was there at the last look",
))
CHANGES = Rows(Row(
    id="whole its number: later changes have larger ones",
    time="number epoch seconds, when it was recorded",
    who="text? the user whose call did it; null: the platform itself",
    kind="text device (its type), name, model, image, owner, setting, link, or stored-image",
    mac="text? the device, lower case, with colons; null: an image of the store",
    name="text? of the device now; null: it is gone",
    item="text name of the setting or of the image; MAC of the other end of a link; or empty",
    before="text? null: there was none",
    after="text? null: there is none any more",
))
# Spec server §3.5.
RECORD = Row(
    mac="text MAC, lower case, with colons",
    ip="text? IPv4 address",
    name="text of the device",
    type="text server, node, switch or unknown",
    conf="object settings that were made, by name",
    in_walt_net="truth its address is of walt-net",
    model="[text?] of a node or switch",
    virtual="[truth] a node: it is a virtual machine",
    image="[text?] a node: full name of its image",
    booted="[truth] a node: it has booted",
    netmask="[text] a node: of walt-net",
    gateway="[text] a node: its router; empty without NAT",
    netsetup="[whole] a node: 0 LAN, 1 NAT",
)
RECORDS = Rows(RECORD)
RECORD_OR_NULL = OrNull(RECORD)
SETTINGS = Rows(Row(
    category="text of devices",
    names="texts the devices that have these settings",
    settings="object effective values, by name",
))
IMAGES = Tables(
    Row(
        name="text without user, and without the tag latest",
        fullname="text <user>/<name>:<tag>",
        user="text whose it is",
        id="text hexadecimal, of podman",
        digest="text? address of its manifest",
        created="number epoch seconds",
        size="number bytes",
        in_use="truth a node boots it",
        compatibility="texts models of nodes that can boot it",
        clonable_link="text what `walt image clone` takes",
    ),
    "own", "others", "default",
    hidden="images of others and default ones", total="images of the platform",
)
LAYERS = Rows(Row(
    fullname="text <user>/<name>:<tag>",
    id="text hexadecimal: the checksum of its configuration",
    layers="texts checksums of its uncompressed layers, lowest first",
))
REGISTRIES = Rows(Row(
    label="text first word of clonable links",
    description="text for people",
    publishing="truth it needs credentials of the caller",
    reading="truth it needs credentials of the caller",
))
FOUND = Rows(Row(
    user="text whose it is",
    name="text without user, and without the tag latest",
    location="text what kind of place it is in",
    compatibility="texts models of nodes that can boot it",
    clonable_link="text what `walt image clone` takes, or why this server cannot boot it",
    link="text the same, in any case",
))
WORKFLOWS = Rows(Row(
    name="text of the workflow",
    step="text what it does now",
    age="number seconds since it began",
    step_age="number seconds since the step began",
    remaining="texts steps to come",
))
SERVICES = Rows(Row(
    name="text of the daemon",
    state="text running, not answering, restarting in N s, or stopped",
    running="truth its process is there",
    pid="whole? of its process",
    restarts="whole since the start of the server",
    status="whole? exit status of its last process",
    trouble="text? the last one, however long ago",
    trouble_time="number? epoch seconds",
))
CERTIFICATES = Rows(Row(
    serial="text hexadecimal",
    name="text of the user or machine",
    kind="text user or machine",
    issued="number epoch seconds",
    expires="number epoch seconds",
    revoked="number? epoch seconds",
))
VPN_KEYS = Rows(Row(
    certid="text identity of its certificates: vpn_ and the digits of the board's MAC",
    revoked="truth its certificates are refused",
    forgotten_device="truth the board is no device of the platform any more",
    device_label="text its name and MAC, in words",
))
VPN_SETTINGS = Row(
    enabled="truth the VPN is configured",
    name="text full name of the server",
    ssh_port="whole where our sshd listens",
    ssh_entrypoint="text? host, with :port if it is not 22",
    http_entrypoint="text? host",
    boot_mode="text? permissive or enforced",
    authority="text public key of the authority, one line",
    host_keys="texts public keys of our sshd, one line each",
)
CHECKPOINTS = Pairs("number epoch seconds", "text name")
