#ifndef LOADING_RULES_H
#define LOADING_RULES_H

// How transformers renames and rearranges the tensors of checkpoints: the text of transformers.txt, in ASCII.
const char *loading_rules(void);

#endif
