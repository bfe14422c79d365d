"""Makes Swift's rings: one disk, one replica. usage: openstack-rings.py FOLDER NAME:PORT..."""
import sys

from swift.common.ring import RingBuilder

for server in sys.argv[2:]:
    name, port = server.split(":")
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    node = {"ip": "127.0.0.1", "port": int(port), "replication_ip": "127.0.0.1", "replication_port": int(port)}
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "d1", "meta": "", **node})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
