// The headers stand alone, and may be included twice.
#include "session_group.hpp"

int main(void) { return SessionGroup_SessionNum(nullptr); }
