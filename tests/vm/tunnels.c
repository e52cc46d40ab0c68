// SPDX-License-Identifier: BSD-2-Clause
/* Tunnels of the kernel's own, by iproute2. See tunnels.h. */
#include "tunnels.h"

#include "lab.h"

#include <stdio.h>
#include <string.h>

/*
 * Each is made at both of its ends by lines for `ip -batch`: $N is its number, t$N the device to make, $L4
 * and $L6 are the end's own addresses, $R4 and $R6 the other's; $M4 and $M6 the end's within the tunnel, $O4
 * and $O6 the other's; $A4 and $A6 the end's between two layers, $B4 and $B6 the other's.
 */
#define DEVICE                                                                                               \
	"\nlink set t$N group " LAB_GROUP " up mtu 1280 addrgenmode none\naddr add $M4/30 dev t$N\n"         \
	"addr add $M6/64 dev t$N nodad"
/* Too small for IPv6. */
#define SMALL_DEVICE "\nlink set t$N group " LAB_GROUP " up mtu 1200\naddr add $M4/30 dev t$N"
/* Where the outer one of two layers begins and ends. */
#define LAYER                                                                                                \
	"link add u$N type dummy\nlink set u$N group " LAB_GROUP " up mtu 1400 addrgenmode none\n"           \
	"addr add $A4 dev u$N\naddr add $A6 dev u$N nodad\n"
#define SRV6(to, segment, device) "route add " to " encap seg6 mode encap segs " segment " dev " device "$N\n"

/*
 * Not here is what the kernel cuts before it comes to the hook: any device of a tunnel on another one, such
 * as VXLAN on GRE, as no device of a tunnel takes an aggregate that is in a tunnel already. Layers upon
 * layers are those of one device (GRE in GUE) and of routes (SRv6).
 */
const struct tunnel_kind tunnel_kinds[TUNNEL_KINDS] = {
	{"ipip", "link add t$N type ipip local $L4 remote $R4" DEVICE, IPV4, GATEWAY},
	{"vxlan", "link add t$N type vxlan id 7$N local $L4 remote $R4 dstport 4789" DEVICE, BOTH, CONTAINER},
	{"sit", "link add t$N type sit local $L4 remote $R4" DEVICE, IPV6, GATEWAY},
	{"vxlan over IPv6",
	 "link add t$N type vxlan id 7$N local $L6 remote $R6 dstport 4789 udp6zerocsumtx "
	 "udp6zerocsumrx" DEVICE,
	 BOTH, CONTAINER},
	{"ip6tnl", "link add t$N type ip6tnl mode any local $L6 remote $R6 encaplimit none" DEVICE, BOTH,
	 GATEWAY},
	{"geneve", "link add t$N type geneve id 7$N remote $R4 udpcsum" DEVICE, BOTH, CONTAINER},
	{"ip6tnl with a limit", "link add t$N type ip6tnl mode any local $L6 remote $R6" DEVICE, BOTH,
	 GATEWAY},
	{"ipip in fou",
	 "link add t$N type ipip local $L4 remote $R4 encap fou encap-sport 5555 encap-dport "
	 "5555" DEVICE,
	 IPV4, CONTAINER},
	{"gre", "link add t$N type gre local $L4 remote $R4" DEVICE, BOTH, GATEWAY},
	{"gre in gue",
	 "link add t$N type gre local $L4 remote $R4 encap gue encap-sport 5556 encap-dport 5556 "
	 "encap-csum" DEVICE,
	 BOTH, CONTAINER},
	{"gre with a key", "link add t$N type gre local $L4 remote $R4 key 7" DEVICE, BOTH, GATEWAY},
	{"gre with a checksum", "link add t$N type gre local $L4 remote $R4 csum" DEVICE, BOTH, GATEWAY},
	{"gretap", "link add t$N type gretap local $L4 remote $R4" DEVICE, BOTH, GATEWAY},
	{"ip6gre", "link add t$N type ip6gre local $L6 remote $R6 encaplimit none" DEVICE, BOTH, GATEWAY},
	{"ip6gretap", "link add t$N type ip6gretap local $L6 remote $R6 encaplimit none" DEVICE, BOTH,
	 GATEWAY},
	{"srv6",
	 "link add t$N type dummy" DEVICE "\nlink set t$N mtu 1400\n" SRV6("$O4", "$R6", "t")
		 SRV6("$O6", "$R6", "t"),
	 BOTH, CONTAINER},
	{"gre in gue in srv6",
	 LAYER SRV6("$B4", "$R6",
		    "u") "link add t$N type gre local $A4 remote $B4 encap gue encap-sport 5556 "
			 "encap-dport 5556 encap-csum" DEVICE,
	 BOTH, CONTAINER},
	{"ipip in srv6 in srv6",
	 LAYER SRV6("$B4", "$B6", "u")
		 SRV6("$B6", "$R6", "u") "link add t$N type ipip local $A4 remote $B4" SMALL_DEVICE,
	 IPV4, CONTAINER},
};

const struct tunnel_kind *tunnel_named(const char *name)
{
	for (size_t i = 0; i < TUNNEL_KINDS; i++)
		if (strcmp(tunnel_kinds[i].name, name) == 0)
			return &tunnel_kinds[i];
	fail_msg("there is no %s", name);
	return NULL;
}

/* Layers within SRv6, on 6.12; 6.1 leaves them whole. */
bool tunnel_is_cut(const struct tunnel_kind *kind)
{
	return strstr(kind->name, " in srv6") && lab_kernel_is(6, 12);
}

/* The type of its device. */
static const char *type_of(const struct tunnel_kind *kind, int *ret_length)
{
	const char *type = strstr(kind->make, "add t$N type ");

	assert_non_null(type);
	type += strlen("add t$N type ");
	*ret_length = (int)strcspn(type, " \n");
	return type;
}

bool tunnel_differs(const struct tunnel_kind *one, const struct tunnel_kind *other)
{
	int length, other_length;
	const char *type = type_of(one, &length), *other_type = type_of(other, &other_length);

	return length != other_length || strncmp(type, other_type, (size_t)length) != 0;
}

/* Lines for one end of a tunnel between the customer and another place; a status. */
static int change_end(const char *lines, bool customer, int end, int number)
{
	static const char *const addresses[] = {
		[GATEWAY] = "10.8.0.1 fd08::1",
		[1] = "10.8.0.2 fd08::2",
		[CONTAINER] = "10.7.0.2 fd07::2",
	};
	const int place = customer ? 1 : end, other = customer ? end : 1;

	return lab_run(place,
		       "sh -ec 'N=%1$d; set -- %2$s %3$s; L4=$1 L6=$2 R4=$3 R6=$4; me=%4$d you=%5$d; "
		       "M4=172.16.$N.$me O4=172.16.$N.$you M6=fd16:$N::$me O6=fd16:$N::$you "
		       "A4=172.17.$N.$me B4=172.17.$N.$you A6=fd17:$N::$me B6=fd17:$N::$you\n"
		       "ip -batch - <<EOF\n%6$s\nEOF\n'",
		       number, addresses[place], addresses[other], customer ? 1 : 2, customer ? 2 : 1, lines);
}

void tunnel_make(const struct tunnel_kind *kind, int end, int number)
{
	if (change_end(kind->make, true, end, number) || change_end(kind->make, false, end, number))
		fail_msg("%s cannot be made", kind->name);
}

void tunnel_remove(int end, int number)
{
	/* The outer layer is not always there. */
	static const char command[] = "sh -c 'ip link del t%1$d; ip link del u%1$d 2>/dev/null; true'";

	assert_int_equal(lab_run(1, command, number), 0);
	assert_int_equal(lab_run(end, command, number), 0);
}

const char *tunnel_address(int number, int version, bool customer)
{
	static char texts[4][48];
	static unsigned next;
	char *text = texts[next++ % ARRAY_SIZE(texts)];

	snprintf(text, sizeof(texts[0]), version == IPV4 ? "::ffff:172.16.%d.%d" : "fd16:%d::%d", number,
		 customer ? 1 : 2);
	return text;
}

int tunnels_prepare(void)
{
	static const struct {
		int place;
		const char *address;
	} ends[] = {{GATEWAY, "fd08::1"}, {1, "fd08::2"}, {CONTAINER, "fd07::2"}};

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (lab_run(ends[i].place,
			    "sh -ec 'ip fou add port 5555 ipproto 4; ip fou add port 5556 gue; "
			    "ip sr tunsrc set %s; cd /proc/sys/net; "
			    /* For guests. */
			    "echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding; "
			    "for c in ipv6/conf/*/seg6_enabled; do echo 1 >$c; done'",
			    ends[i].address))
			return -1;
	return 0;
}
