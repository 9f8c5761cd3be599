/* Asks the library that it is linked with which backends it has. */
#include <stdio.h>

extern const char *gptq_linkage_plan(void);

int main(void) {
    puts(gptq_linkage_plan());
    return 0;
}
