/* The methods of Searcher: from Python's arguments to arrays. */
#include "module.h"

static PyObject *empty, *int32, *int64;

int prepare_arrays(void) {
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (!numpy) return -1;
    empty = PyObject_GetAttrString(numpy, "empty");
    int32 = PyObject_CallMethod(numpy, "dtype", "s", "int32");
    int64 = PyObject_CallMethod(numpy, "dtype", "s", "int64");
    Py_DECREF(numpy);
    return empty && int32 && int64 ? 0 : -1;
}

/* -- find -- */

/* Returns (limits, distances, ids) as bytes, the answers in the order of the queries. */
static PyObject *in_order(const Answer *answer, int64_t n_queries) {
    PyObject *limits = PyBytes_FromStringAndSize(NULL, 8 * (n_queries + 1)), *result = NULL;
    PyObject *distances = PyBytes_FromStringAndSize(NULL, 4 * answer->n_found);
    PyObject *ids = PyBytes_FromStringAndSize(NULL, 8 * answer->n_found);
    if (limits && distances && ids) {
        char *to_limits = PyBytes_AsString(limits), *to_distances = PyBytes_AsString(distances);
        char *to_ids = PyBytes_AsString(ids);
        int64_t at = 0;
        for (int64_t q = 0; q < n_queries; q++) {
            const int64_t from = answer->starts[q], length = answer->lengths[q];
            memcpy(to_limits + 8 * q, &at, 8);
            if (length) {
                memcpy(to_distances + 4 * at, answer->distances + from, 4 * length);
                memcpy(to_ids + 8 * at, answer->ids + from, 8 * length);
            }
            at += length;
        }
        memcpy(to_limits + 8 * n_queries, &at, 8);
        result = PyTuple_Pack(3, limits, distances, ids);
    }
    Py_XDECREF(limits);
    Py_XDECREF(distances);
    Py_XDECREF(ids);
    return result;
}

PyObject *searcher_find(PyObject *self, PyObject *arguments) {
    const Plan *plan = &((Searcher *)self)->plan;
    Py_buffer queries = {0}, skipped = {0};
    Task task = {0};
    Answer answer = {0};
    long long k, first, last;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(arguments, "y*LiLLz*", &queries, &k, &task.radius, &first, &last, &skipped)) return NULL;
    task.queries = queries.buf;
    task.n_queries = queries.len / (8 * plan->groups.n_words);
    task.k = k;
    task.first = first;
    task.last = last;
    task.skipped = skipped.buf;
    if (k < 1 || task.radius < 0 || task.radius > 64 * plan->groups.n_words || first < 0 || last > plan->groups.n) {
        PyErr_SetString(PyExc_ValueError, "k, radius, first or last is out of range");
    } else if (!skipped.buf || holds(&skipped, task.n_queries * 8, "skipped")) {
        int failed;
        Py_BEGIN_ALLOW_THREADS
        failed = find(plan, &task, &answer);
        Py_END_ALLOW_THREADS
        result = failed ? PyErr_NoMemory() : in_order(&answer, task.n_queries);
    }
    answer_free(&answer);
    PyBuffer_Release(&queries);
    if (skipped.obj) PyBuffer_Release(&skipped);
    return result;
}

/* -- search -- */

/* Returns codes (n, n_bytes) uint8, n at least 1, as words; NULL where they are none, or pad bits are set. */
static uint64_t *as_words(const Py_buffer *codes, int64_t n_bits, int n_words) {
    const int64_t n_bytes = (n_bits + 7) / 8, width = 8 * n_words;
    if (codes->ndim != 2 || codes->itemsize != 1 || !codes->format || strcmp(codes->format, "B") != 0) return NULL;
    if (codes->shape[0] < 1 || codes->shape[1] != n_bytes || n_bytes > width) return NULL;
    const int64_t n = codes->shape[0];
    const unsigned char *code = codes->buf, pad = (unsigned char)((1 << (8 * n_bytes - n_bits)) - 1);
    for (int64_t i = 0; i < n && pad; i++)
        if (code[i * n_bytes + n_bytes - 1] & pad) return NULL;
    unsigned char *words = malloc(n * width);
    if (!words) return NULL;
    if (n_bytes == width) memcpy(words, code, n * width);
    for (int64_t i = 0; i < n && n_bytes < width; i++) {
        memcpy(words + i * width, code + i * n_bytes, n_bytes);
        memset(words + i * width + n_bytes, 0, width - n_bytes);
    }
    return (uint64_t *)words;
}

/* Returns an array (n, width) and its buffer, or NULL with an exception. */
static PyObject *new_array(int64_t n, int64_t width, PyObject *dtype, Py_buffer *buffer) {
    PyObject *shape = Py_BuildValue("LL", (long long)n, (long long)width);
    PyObject *array = shape ? PyObject_CallFunctionObjArgs(empty, shape, dtype, NULL) : NULL;
    Py_XDECREF(shape);
    if (array && PyObject_GetBuffer(array, buffer, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)) Py_CLEAR(array);
    return array;
}

/* Rows that have fewer results than the others end in -1. */
static void fill(Answer *answer, int64_t n_queries) {
    for (int64_t q = 0; q < n_queries; q++)
        for (int64_t i = q * answer->width + answer->lengths[q]; i < (q + 1) * answer->width; i++)
            answer->distances[i] = -1, answer->ids[i] = -1;
}

static PyObject *answered(const Searcher *self, const Task *task) {
    Py_buffer distances, ids;
    Answer answer = {.width = task->k};
    int failed;
    PyObject *first = new_array(task->n_queries, task->k, int32, &distances);
    if (!first) return NULL;
    PyObject *second = new_array(task->n_queries, task->k, int64, &ids), *result = NULL;
    if (second) {
        answer.distances = distances.buf;
        answer.ids = ids.buf;
        Py_BEGIN_ALLOW_THREADS
        failed = find(&self->plan, task, &answer);
        if (!failed) fill(&answer, task->n_queries);
        answer_free(&answer);
        Py_END_ALLOW_THREADS
        PyBuffer_Release(&ids);
        result = failed ? PyErr_NoMemory() : PyTuple_Pack(2, first, second);
        Py_DECREF(second);
    }
    PyBuffer_Release(&distances);
    Py_DECREF(first);
    return result;
}

PyObject *searcher_search(PyObject *object, PyObject *const *arguments, Py_ssize_t n_arguments) {
    const Searcher *self = (Searcher *)object;
    const Groups *groups = &self->plan.groups;
    const int n_levels = 64 * groups->n_words + 1;
    Task task = {.last = groups->n};
    Py_buffer queries;
    long n_bits, radius = n_levels - 1;
    if (n_arguments != 4) {
        PyErr_SetString(PyExc_TypeError, "search takes four arguments");
        return NULL;
    }
    if (!PyLong_CheckExact(arguments[1]) || !groups->n_ids) Py_RETURN_NONE;
    task.k = PyLong_AsLongLong(arguments[1]);
    n_bits = PyLong_AsLong(arguments[3]);
    if (arguments[2] != Py_None) radius = PyLong_CheckExact(arguments[2]) ? PyLong_AsLong(arguments[2]) : -1;
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &queries, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    uint64_t *words = NULL;
    if (task.k > 0 && radius >= 0 && n_bits > 0 && queries.ndim == 2 && queries.shape[0] <= self->alone) {
        words = as_words(&queries, n_bits, groups->n_words);
        task.n_queries = queries.shape[0];
    }
    PyBuffer_Release(&queries);
    if (!words) Py_RETURN_NONE;
    task.queries = words;
    task.radius = (int)(radius < n_levels ? radius : n_levels - 1);
    if (task.k > groups->n_ids) task.k = groups->n_ids;
    PyObject *result = answered(self, &task);
    free(words);
    return result;
}
