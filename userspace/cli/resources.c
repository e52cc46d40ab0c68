// SPDX-License-Identifier: BSD-2-Clause
/* The nouns: where they are in the API, which columns a list shows, which options set which fields. */
#include "cli/resource.h"

static const struct cli_option IMAGE_FIELDS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "the image's name"},
	{"path", OPTION_TEXT, "path", "PATH", "where the hypervisors find it"},
	{"purpose", OPTION_TEXT, "purpose", "PURPOSE", "vpn_gateway: it may become a gateway"},
	{"enabled", OPTION_SWITCH, "enabled", "on|off", "off: no new gateway takes it"},
	{0},
};
const struct resource RESOURCE_IMAGE = {"/v1/images", "name,purpose,enabled,path,id", IMAGE_FIELDS};

static const struct cli_option PLAN_FIELDS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "the plan's name"},
	{"cpu", OPTION_INTEGER, "cpu", "N", "processors of a gateway"},
	{"ram-mb", OPTION_INTEGER, "ram_mb", "MB", "its memory"},
	{"storage-gb", OPTION_INTEGER, "storage_gb", "GB", "its storage"},
	{"included-gb", OPTION_AMOUNT, "included_gb", "GB",
	 "bandwidth included per cycle, as 10.5; a new plan needs this or --unlimited"},
	{"unlimited", OPTION_NULL, "included_gb", NULL, "bandwidth without limit"},
	{"credit-value", OPTION_AMOUNT, "credit_value", "CREDITS", "base price per month of this plan"},
	{"no-credit-value", OPTION_NULL, "credit_value", NULL, "the location's base price applies"},
	{0},
};
const struct resource RESOURCE_PLAN = {
	"/v1/plans", "name,cpu=CPU,ram_mb=RAM MB,storage_gb,included_gb,credit_value,id", PLAN_FIELDS};

static const struct cli_option PLAN_GROUP_FIELDS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "the group's name"},
	{"plans", OPTION_LIST, "plans", "PLAN[,PLAN]...", "its plans, in order"},
	{0},
};
const struct resource RESOURCE_PLAN_GROUP = {"/v1/plan-groups", "name,plan_names=PLANS,id",
					     PLAN_GROUP_FIELDS};

static const struct cli_option LOCATION_FIELDS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "the location's name"},
	{"vpn", OPTION_SWITCH, "vpn_enabled", "on|off", "whether gateways may be created there"},
	{"credit-value", OPTION_AMOUNT, "credit_value", "CREDITS",
	 "base price per month; a new location needs it, 0 is free"},
	{"bandwidth-rate", OPTION_AMOUNT, "bandwidth_rate", "CREDITS",
	 "price of a GB of overage; a new location needs it, 0 is free"},
	{"accounting", OPTION_CHOICE, "accounting", "uploads|downloads|both", "which bytes count as used"},
	{"overage", OPTION_CHOICE, "overage", "none|charge_overage|revoke_access",
	 "what happens beyond the allowance"},
	{"image", OPTION_TEXT, "image", "IMAGE", "what gateways are made of"},
	{"any-image", OPTION_NULL, "image", NULL, "any enabled image with purpose vpn_gateway"},
	{"plan-group", OPTION_TEXT, "plan_group", "GROUP", "the plans that are offered"},
	{"no-plan-group", OPTION_NULL, "plan_group", NULL, "offer no plans"},
	{"link", OPTION_INTEGER, "link_gbps", "GBIT", "the fastest that a gateway can be, per second (400)"},
	{"site-ranges", OPTION_LIST, "site_ranges", "CIDR[,CIDR]...",
	 "what the networks of sites may be; by default the private ranges"},
	{0},
};
const struct resource RESOURCE_LOCATION = {
	"/v1/locations", "name,vpn_enabled=VPN,credit_value,bandwidth_rate,accounting,overage,id",
	LOCATION_FIELDS};

static const struct cli_option HYPERVISOR_FIELDS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "the hypervisor's name"},
	{"location", OPTION_TEXT, "location", "LOCATION", "where it is"},
	{"driver", OPTION_TEXT, "driver", "DRIVER", "how it makes gateways: netns"},
	{"cpu", OPTION_INTEGER, "cpu", "N", "processors for gateways"},
	{"ram-mb", OPTION_INTEGER, "ram_mb", "MB", "memory for gateways"},
	{"storage-gb", OPTION_INTEGER, "storage_gb", "GB", "storage for gateways"},
	{0},
};
const struct resource RESOURCE_HYPERVISOR = {
	"/v1/hypervisors", "name,location_name=LOCATION,driver,cpu=CPU,ram_mb=RAM MB,storage_gb,id",
	HYPERVISOR_FIELDS};

static const struct cli_option USER_FIELDS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "the account's name"},
	{"email", OPTION_TEXT, "email", "ADDRESS", "its e-mail address"},
	{"no-email", OPTION_NULL, "email", NULL, "none any more"},
	{"role", OPTION_CHOICE, "role", "user|admin|billing|service", "what it may do"},
	{"max-gateways", OPTION_INTEGER, "max_gateways", "N", "how many gateways it may have; 0: any number"},
	{0},
};
const struct resource RESOURCE_USER = {"/v1/users", "name,email,role,max_gateways,id", USER_FIELDS};

const struct resource RESOURCE_SESSION = {"/v1/sessions",
					  "user_name=USER,kind,created,expires,address,current,id", NULL};

static const struct cli_option VPC_FIELDS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "the VPC's name"},
	{"owner", OPTION_TEXT, "owner", "USER", "whose it is"},
	{"location", OPTION_TEXT, "location", "LOCATION", "where it is"},
	{"subnet", OPTION_SUBNET, "subnets",
	 "CIDR[,bridge=NAME][,hypervisor=NAME][,range=FIRST-LAST][,route-netns=NAME]...",
	 "a private subnet; may come again"},
	{"public-subnet", OPTION_PUBLIC_SUBNET, "subnets",
	 "CIDR[,bridge=NAME][,range=FIRST-LAST][,router=ADDRESS]",
	 "a subnet that gives out public addresses; may come again"},
	{0},
};
const struct resource RESOURCE_VPC = {"/v1/vpcs", "name,owner_name=OWNER,location_name=LOCATION,id",
				      VPC_FIELDS};

static const struct cli_option GATEWAY_FIELDS[] = {
	{"name", OPTION_TEXT, "name", "NAME", "the gateway's name"},
	{"masquerade", OPTION_CHOICE, "masquerade_into_vpc", "road_warriors|all|none",
	 "whose traffic takes the gateway's address in the VPC"},
	{0},
};
const struct resource RESOURCE_GATEWAY = {
	"/v1/gateways", "name,status,vpc_name=VPC,public_ip=PUBLIC IP,plan_name=PLAN,bandwidth",
	GATEWAY_FIELDS};
