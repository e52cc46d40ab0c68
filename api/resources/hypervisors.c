// SPDX-License-Identifier: BSD-2-Clause
/* A5: hypervisors of a location, with their capacity. */
#include "resources/common.h"
#include "resources/resources.h"

#define HYPERVISOR_OBJECT                                                                                    \
	"json_build_object('id', h.id, 'name', h.name, 'location', h.location, 'location_name', "            \
	"(SELECT l.name FROM gateway.location l WHERE l.id = h.location), 'driver', h.driver, 'cpu', "       \
	"h.cpu, "                                                                                            \
	"'ram_mb', h.ram_mb, 'storage_gb', h.storage_gb, 'created', " SQL_TIME("h.created") ")"

static const char *const drivers[] = {"netns", NULL};

struct hypervisor {
	const char *name, *location, *driver, *cpu, *ram_mb, *storage_gb;
	char location_id[UUID_TEXT_SIZE];
	struct form form; /* keeps the numbers' text */
};

static int read_hypervisor(struct request *request, struct response *response, enum need need,
			   struct hypervisor *hypervisor)
{
	struct form *form = &hypervisor->form;
	int r;

	*form = form_of(request, response);
	hypervisor->name = form_title(form, "name", need);
	/* What a hypervisor is and where it stands never changes: gateways live on it. */
	if (need == REQUIRED) {
		hypervisor->location = form_text(form, "location", REQUIRED, 63);
		hypervisor->driver = form_choice(form, "driver", REQUIRED, drivers);
	}
	hypervisor->cpu = form_integer(form, "cpu", need, 1, 1 << 20);
	hypervisor->ram_mb = form_integer(form, "ram_mb", need, 1, 1 << 30);
	hypervisor->storage_gb = form_integer(form, "storage_gb", need, 1, 1 << 30);
	r = form_end(form);
	if (r < 0 || !hypervisor->location)
		return r;
	return find_noun(request, response, LOCATION, "location", hypervisor->location,
			 hypervisor->location_id);
}

static int list_hypervisors(struct request *request, struct response *response)
{
	return answer_page(request, response,
			   "SELECT " HYPERVISOR_OBJECT
			   ", h.name, h.id FROM gateway.hypervisor h WHERE " SQL_AFTER("h") SQL_PAGE("h"),
			   0, NULL);
}

static int answer_hypervisor(struct request *request, struct response *response, unsigned status,
			     const char *id)
{
	return ANSWER_OBJECT(request, response, status,
			     "SELECT " HYPERVISOR_OBJECT " FROM gateway.hypervisor h WHERE h.id = $1", id);
}

static int get_hypervisor(struct request *request, struct response *response)
{
	return get_noun(request, response, HYPERVISOR, answer_hypervisor);
}

static int create_hypervisor(struct request *request, struct response *response)
{
	struct hypervisor hypervisor = {0};
	char id[UUID_TEXT_SIZE];
	int r;

	uuid_generate(id);
	r = read_hypervisor(request, response, REQUIRED, &hypervisor);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_EXECUTE(request->db,
			       "INSERT INTO gateway.hypervisor (id, name, location, driver, cpu, ram_mb, "
			       "storage_gb) "
			       "VALUES ($1, $2, $3, $4, $5, $6, $7)",
			       id, hypervisor.name, hypervisor.location_id, hypervisor.driver, hypervisor.cpu,
			       hypervisor.ram_mb, hypervisor.storage_gb);
	return r < 0 ? r : finish_change(request, response, 201, "create", id, answer_hypervisor);
}

static int change_hypervisor(struct request *request, struct response *response)
{
	struct hypervisor hypervisor = {0};
	char id[UUID_TEXT_SIZE];
	int r;

	r = find_noun(request, response, HYPERVISOR, NULL, request->arguments[0], id);
	if (r == 0)
		r = read_hypervisor(request, response, OPTIONAL, &hypervisor);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_EXECUTE(
			request->db,
			"UPDATE gateway.hypervisor SET name = coalesce($2, name), cpu = coalesce($3, cpu), "
			"ram_mb = coalesce($4, ram_mb), storage_gb = coalesce($5, storage_gb) WHERE id = $1",
			id, hypervisor.name, hypervisor.cpu, hypervisor.ram_mb, hypervisor.storage_gb);
	return r < 0 ? r : finish_change(request, response, 200, "change", id, answer_hypervisor);
}

static int delete_hypervisor(struct request *request, struct response *response)
{
	return delete_noun(request, response, HYPERVISOR);
}

const struct route hypervisor_routes[] = {
	{"GET", "/v1/hypervisors", ROLE_ADMIN, list_hypervisors, QUERY_PAGE},
	{"POST", "/v1/hypervisors", ROLE_ADMIN, create_hypervisor, NULL},
	{"GET", "/v1/hypervisors/{hypervisor}", ROLE_ADMIN, get_hypervisor, NULL},
	{"PATCH", "/v1/hypervisors/{hypervisor}", ROLE_ADMIN, change_hypervisor, NULL},
	{"DELETE", "/v1/hypervisors/{hypervisor}", ROLE_ADMIN, delete_hypervisor, NULL},
	{0},
};
