// The header stands alone, and may be included twice.
#include "session_group.h"

int main(void) { return SessionGroup_SessionNum(NULL); }
