/* The Python side of the kernel, which kernel.py alone uses. */
#ifndef DEEPHASH_MODULE_H
#define DEEPHASH_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "find.h"

/* The Python object over a plan. It holds on to the arrays; they are looked at once, when it is made. */
typedef struct {
    PyObject_HEAD
    Plan plan;
    /* So many queries are answered at once; more are worth several threads. */
    int64_t alone;
    int n_buffers;
    Py_buffer buffers[7 + 2 * MAX_TABLES];
} Searcher;

/* Checks that a buffer holds so many bytes; buffers of None have none. */
int holds(const Py_buffer *buffer, int64_t n_bytes, const char *name);

/* Adds the type `Searcher` to the module; returns -1 with an exception. */
int add_searcher(PyObject *module);

/* What `searching.c` needs of numpy; returns -1 with an exception. */
int prepare_arrays(void);

/* Methods of Searcher. */
PyObject *searcher_find(PyObject *self, PyObject *arguments);
PyObject *searcher_search(PyObject *self, PyObject *const *arguments, Py_ssize_t n_arguments);

#endif
