#include "loading_rules.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const char text[] = {
#embed "transformers.txt"
    , 0};

const char *loading_rules(void) { return text; }
