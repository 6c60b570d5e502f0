#include "status_page.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const char page[] = {
#embed "page.html"
    , 0};

static const char description[] = {
#embed "openapi.json"
    , 0};

const char *status_page(void) { return page; }

const char *status_description(void) { return description; }
