// SPDX-License-Identifier: BSD-2-Clause
/* A1: OS images. Only an enabled one with purpose vpn_gateway can become a gateway. */
#include "resources/common.h"
#include "resources/resources.h"

#define IMAGE_OBJECT                                                                                         \
	"json_build_object('id', i.id, 'name', i.name, 'path', i.path, 'purpose', i.purpose, 'enabled', "    \
	"i.enabled, "                                                                                        \
	"'sha256', i.sha256, 'created', " SQL_TIME("i.created") ")"

struct image {
	const char *name, *path, *purpose, *enabled;
};

static int read_image(struct request *request, struct response *response, enum need need, struct image *image)
{
	struct form form = form_of(request, response);

	image->name = form_title(&form, "name", need);
	image->path = form_text(&form, "path", OPTIONAL, 1024);
	image->purpose = form_text(&form, "purpose", OPTIONAL, 63);
	image->enabled = form_bool(&form, "enabled", OPTIONAL);
	if (image->path && image->path[0] != '/')
		form_refuse(&form, "path", "path is \"%.200s\"; accepted is an absolute path", image->path);
	return form_end(&form);
}

static int list_images(struct request *request, struct response *response)
{
	return answer_page(request, response,
			   "SELECT " IMAGE_OBJECT ", i.name, i.id FROM gateway.image i WHERE " SQL_AFTER("i")
				   SQL_PAGE("i"),
			   0, NULL);
}

static int answer_image(struct request *request, struct response *response, unsigned status, const char *id)
{
	return ANSWER_OBJECT(request, response, status,
			     "SELECT " IMAGE_OBJECT " FROM gateway.image i WHERE i.id = $1", id);
}

static int get_image(struct request *request, struct response *response)
{
	return get_noun(request, response, IMAGE, answer_image);
}

static int create_image(struct request *request, struct response *response)
{
	char id[UUID_TEXT_SIZE];
	struct image image;
	int r;

	uuid_generate(id);
	r = read_image(request, response, REQUIRED, &image);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_EXECUTE(
			request->db,
			"INSERT INTO gateway.image (id, name, path, purpose, enabled) "
			"VALUES ($1, $2, $3, coalesce($4, 'vpn_gateway'), coalesce($5::boolean, true))",
			id, image.name, image.path, image.purpose, image.enabled);
	return r < 0 ? r : finish_change(request, response, 201, "create", id, answer_image);
}

static int change_image(struct request *request, struct response *response)
{
	char id[UUID_TEXT_SIZE];
	struct image image;
	int r;

	r = find_noun(request, response, IMAGE, NULL, request->arguments[0], id);
	if (r == 0)
		r = read_image(request, response, OPTIONAL, &image);
	if (r == 0)
		r = db_begin(request->db);
	if (r == 0)
		r = DB_EXECUTE(
			request->db,
			"UPDATE gateway.image SET name = coalesce($2, name), path = coalesce($3, path), "
			"purpose = coalesce($4, purpose), enabled = coalesce($5::boolean, enabled) WHERE id "
			"= $1",
			id, image.name, image.path, image.purpose, image.enabled);
	return r < 0 ? r : finish_change(request, response, 200, "change", id, answer_image);
}

static int delete_image(struct request *request, struct response *response)
{
	return delete_noun(request, response, IMAGE);
}

const struct route image_routes[] = {
	{"GET", "/v1/images", ROLE_ADMIN, list_images, QUERY_PAGE},
	{"POST", "/v1/images", ROLE_ADMIN, create_image, NULL},
	{"GET", "/v1/images/{image}", ROLE_ADMIN, get_image, NULL},
	{"PATCH", "/v1/images/{image}", ROLE_ADMIN, change_image, NULL},
	{"DELETE", "/v1/images/{image}", ROLE_ADMIN, delete_image, NULL},
	{0},
};
