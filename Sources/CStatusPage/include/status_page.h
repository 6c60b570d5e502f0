#ifndef STATUS_PAGE_H
#define STATUS_PAGE_H

// The files that the status port serves, as text in UTF-8.

// page.html
const char *status_page(void);

// openapi.json
const char *status_description(void);

#endif
